/* The kernels of `native.c`, for one instruction set: it includes this file once for each.

   A kernel works on a block of LANES robots at a time. `V` holds one number of each of them, `U` its
   bits, so that the code reads like that for one robot. The adjoint of a function takes the gradient of what the
   function gives and adds to the gradients of what it took. Comments name the Python function
   that is the definition. */

#define V NAME(V)
#define U NAME(U)
#if LANES > 1
typedef float V __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t U __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t NAME(Halves) __attribute__((vector_size(2 * LANES), may_alias));
INLINE V NAME(widen)(const uint16_t *from) {
  NAME(Halves) halves;
  memcpy(&halves, from, sizeof halves);
  return FLOATS(__builtin_convertvector(halves, U) << 16);
}
INLINE void NAME(narrow)(V x, uint16_t *to) {
  U bits = BITS(x), odd = (U)(x != x);
  bits = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16 & ~odd) | (odd & 0x7fc0);
  NAME(Halves) halves = __builtin_convertvector(bits, NAME(Halves));
  memcpy(to, &halves, sizeof halves);
}
#else
typedef float V;
typedef uint32_t U;
INLINE V NAME(widen)(const uint16_t *from) { return widened(*from); }
INLINE void NAME(narrow)(V x, uint16_t *to) { *to = rounded(x); }
#endif

typedef struct {
  V r[9], p[3]; /* rotation, row by row, and place */
} NAME(Pose);
#define Pose NAME(Pose)

INLINE V NAME(all)(float x) { return x - (V){0}; }
INLINE V NAME(dot)(const V *a, const V *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

INLINE void NAME(add_cross)(const V *a, const V *b, V *out) {
  out[0] += a[1] * b[2] - a[2] * b[1];
  out[1] += a[2] * b[0] - a[0] * b[2];
  out[2] += a[0] * b[1] - a[1] * b[0];
}

/* out += R v and R^T v, and the rotation's gradient where R v, or R^T v, has the gradient g. */
INLINE void NAME(add_turned)(const V *r, const V *v, V *out) {
  for (int i = 0; i < 3; i++) out[i] += NAME(dot)(r + 3 * i, v);
}
INLINE void NAME(add_back)(const V *r, const V *v, V *out) {
  for (int i = 0; i < 3; i++) out[i] += r[i] * v[0] + r[3 + i] * v[1] + r[6 + i] * v[2];
}
INLINE void NAME(add_outer)(const V *a, const V *b, V *out) {
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) out[3 * i + j] += a[i] * b[j];
}
INLINE void NAME(product)(const V *a, const V *b, V *out) {
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++)
      out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
}

/* --- functions of numbers ----------------------------------------------------------------------- */

/* Both by a polynomial within an eighth of a turn; right to 1e-7 up to some thousand turns. */
INLINE void NAME(sine_cosine)(V x, V *sine, V *cosine) {
  V shifted = x * 0.636619772f + ROUNDING;
  U quarter = BITS(shifted);
  V turns = shifted - ROUNDING;
  V r = x - turns * 1.5703125f;
  r = r - turns * 4.83751297e-4f;
  r = r - turns * 7.549790126e-8f;
  V r2 = r * r;
  V s = r + r * r2 * (-1.66666546e-1f + r2 * (8.3321608e-3f + r2 * -1.9515295e-4f));
  V c = 1.0f - 0.5f * r2 +
        r2 * r2 * (4.166664568e-2f + r2 * (-1.388731625e-3f + r2 * 2.443315711e-5f));
  U swap = 0 - (quarter & 1);
  V a = SELECT(swap, c, s), b = SELECT(swap, s, c);
  *sine = FLOATS(BITS(a) ^ ((quarter & 2) << 30));
  *cosine = FLOATS(BITS(b) ^ (((quarter + 1) & 2) << 30));
}

/* exp(x) for x up to 88; below -87, of that. */
INLINE V NAME(exponential)(V x) {
  x = SELECT(LESS(x, NAME(all)(-87.0f)), NAME(all)(-87.0f), x);
  V shifted = x * 1.44269504f + ROUNDING;
  V n = shifted - ROUNDING;
  V r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  V p = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666665459e-1f + r * (4.1665795894e-2f +
        r * (8.3334519073e-3f + r * (1.3981999507e-3f + r * 1.9875691500e-4f))))));
  return p * FLOATS((BITS(shifted) + 127) << 23);
}

/* Of 0 and more: a guess by the exponent of 1 / sqrt(x), and Newton's steps. */
INLINE V NAME(root)(V x) {
  V y = FLOATS(0x5f3759df - (BITS(x) >> 1));
  for (int i = 0; i < 2; i++) y = y * (1.5f - 0.5f * x * y * y);
  V out = x * y;
  return out + 0.5f * y * (x - out * out);
}

INLINE V NAME(bounded)(V x, float low, float high) {
  x = SELECT(LESS(x, NAME(all)(low)), NAME(all)(low), x);
  return SELECT(LESS(NAME(all)(high), x), NAME(all)(high), x);
}

/* --- matrices ----------------------------------------------------------------------------------- */

/* `count` numbers of a row, LANES at most, from one column on. */
INLINE V NAME(row_part)(const Matrix *m, int64_t row, int64_t column, int64_t count) {
  V out = {0};
  if (m->bfloat16) {
    const uint16_t *from = (const uint16_t *)m->data + row * m->stride + column;
    if (count == LANES) return NAME(widen)(from);
    for (int64_t c = 0; c < count; c++) ((float *)&out)[c] = widened(from[c]);
  } else {
    const float *from = (const float *)m->data + row * m->stride + column;
    if (count == LANES) {
      memcpy(&out, from, sizeof out);
    } else {
      memcpy(&out, from, count * sizeof(float));
    }
  }
  return out;
}

INLINE void NAME(set_row_part)(const Matrix *m, int64_t row, int64_t column, int64_t count, V x) {
  if (m->bfloat16) {
    uint16_t *to = (uint16_t *)m->data + row * m->stride + column;
    if (count == LANES) {
      NAME(narrow)(x, to);
      return;
    }
    for (int64_t c = 0; c < count; c++) to[c] = rounded(((float *)&x)[c]);
  } else {
    float *to = (float *)m->data + row * m->stride + column;
    if (count == LANES) {
      memcpy(to, &x, sizeof x);
    } else {
      memcpy(to, &x, count * sizeof(float));
    }
  }
}

#if defined(SHUFFLED) && LANES > 1
/* Rows to columns: squares of 8, 4, 2 and 1 numbers change places. */
#define SWAP(d, first, second)                                                    \
  for (int i = 0; i < LANES; i++)                                                 \
    if (!(i & d)) {                                                               \
      V a = rows[i], b = rows[i + d];                                             \
      rows[i] = SHUFFLED first;                                                   \
      rows[i + d] = SHUFFLED second;                                              \
    }
INLINE void NAME(transpose)(V *rows) {
#if LANES == 16
  SWAP(8, (a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
       (a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
  SWAP(4, (a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
       (a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  SWAP(2, (a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
       (a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  SWAP(1, (a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
       (a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif LANES == 8
  SWAP(4, (a, b, 0, 1, 2, 3, 8, 9, 10, 11), (a, b, 4, 5, 6, 7, 12, 13, 14, 15))
  SWAP(2, (a, b, 0, 1, 8, 9, 4, 5, 12, 13), (a, b, 2, 3, 10, 11, 6, 7, 14, 15))
  SWAP(1, (a, b, 0, 8, 2, 10, 4, 12, 6, 14), (a, b, 1, 9, 3, 11, 5, 13, 7, 15))
#else
  SWAP(2, (a, b, 0, 1, 4, 5), (a, b, 2, 3, 6, 7))
  SWAP(1, (a, b, 0, 4, 2, 6), (a, b, 1, 5, 3, 7))
#endif
}
#undef SWAP
#else
INLINE void NAME(transpose)(V *rows) {
  float out[LANES][LANES];
  for (int i = 0; i < LANES; i++)
    for (int j = 0; j < LANES; j++) out[j][i] = ((float *)rows)[i * LANES + j];
  memcpy(rows, out, sizeof out);
}
#endif

/* Columns `first` to `first + count` of LANES rows; rows behind the last one are the last one.
   What does not fill a square is taken with numbers of the square before. */
APART void NAME(load)(const Matrix *m, int64_t row, int64_t first, int64_t count, V *out) {
  int64_t last = m->rows - 1;
  if (count < LANES) {
    for (int i = 0; i < LANES; i++) {
      V part = NAME(row_part)(m, row + i < last ? row + i : last, first, count);
      for (int64_t c = 0; c < count; c++) ((float *)(out + c))[i] = ((float *)&part)[c];
    }
    return;
  }
  for (int64_t c = 0; c < count; c += LANES) {
    if (c > count - LANES) c = count - LANES;
    for (int i = 0; i < LANES; i++)
      out[c + i] = NAME(row_part)(m, row + i < last ? row + i : last, first + c, LANES);
    NAME(transpose)(out + c);
  }
}

APART void NAME(store)(const Matrix *m, int64_t row, int64_t first, int64_t count, const V *in) {
  int64_t rows = m->rows - row < LANES ? m->rows - row : LANES;
  for (int64_t c = 0; c < count; c += LANES) {
    if (c > count - LANES && count >= LANES) c = count - LANES;
    int64_t columns = count - c < LANES ? count - c : LANES;
    V square[LANES];
    for (int k = 0; k < LANES; k++) square[k] = in[c + (k < columns ? k : columns - 1)];
    NAME(transpose)(square);
    for (int64_t i = 0; i < rows; i++)
      NAME(set_row_part)(m, row + i, first + c, columns, square[i]);
  }
}

/* The same of LANES rows that stand anywhere. */
APART void NAME(gather)(const float *const *rows, int64_t count, V *out) {
  for (int64_t c = 0; c < count; c += LANES) {
    if (c > count - LANES) c = count - LANES;
    for (int i = 0; i < LANES; i++) memcpy(out + c + i, rows[i] + c, sizeof(V));
    NAME(transpose)(out + c);
  }
}

/* Which numbers of the parts: all, or those before or from `split` on. */
enum { NAME(WHOLE), NAME(BEFORE), NAME(BEHIND) };
#define WHOLE NAME(WHOLE)
#define BEFORE NAME(BEFORE)
#define BEHIND NAME(BEHIND)

/* Plain numbers to both parts. */
APART void NAME(store_sides)(const Matrix *parts, const Sides *sides, int64_t step, int64_t row,
                             int which, const V *x) {
  const int64_t *first = sides->first, *second = sides->second;
  const float *factor = sides->factor;
  for (int p = 0; p < 2; p++) {
    V out[MOST_NUMBERS];
    int64_t begin = which == BEHIND ? sides->split[p] : 0;
    int64_t end = which == BEFORE ? sides->split[p] : sides->count[p];
    for (int64_t k = begin; k < end; k++) out[k] = x[first[k]] + factor[k] * x[second[k]];
    Matrix m = at_step(parts + p, step);
    if (end > begin) NAME(store)(&m, row, begin, end - begin, out + begin);
    first += sides->count[p], second += sides->count[p], factor += sides->count[p];
  }
}

/* Its adjoint: from the gradients of both parts to that of plain numbers. From outputs of a network
   in both parts it makes plain ones. */
APART void NAME(load_sides)(const Matrix *parts, const Sides *sides, int64_t row, int which, V *x) {
  V in[2][MOST_NUMBERS];
  int64_t begin[2], end[2];
  const int64_t *first = sides->first, *second = sides->second;
  const float *factor = sides->factor;
  for (int p = 0; p < 2; p++) {
    begin[p] = which == BEHIND ? sides->split[p] : 0;
    end[p] = which == BEFORE ? sides->split[p] : sides->count[p];
    if (end[p] > begin[p])
      NAME(load)(parts + p, row, begin[p], end[p] - begin[p], in[p] + begin[p]);
    for (int64_t k = begin[p]; k < end[p]; k++) x[first[k]] = x[second[k]] = (V){0};
    first += sides->count[p], second += sides->count[p];
  }
  first = sides->first, second = sides->second;
  for (int p = 0; p < 2; p++) {
    for (int64_t k = begin[p]; k < end[p]; k++) {
      x[first[k]] += in[p][k];
      x[second[k]] += factor[k] * in[p][k];
    }
    first += sides->count[p], second += sides->count[p], factor += sides->count[p];
  }
}

/* --- layers ------------------------------------------------------------------------------------- */

INLINE V NAME(elu)(V x) {
  return SELECT(LESS(NAME(all)(0.0f), x), x, NAME(exponential)(x) - 1.0f);
}

/* `call` for LANES numbers of a matrix at a time: `count` of them from `row` and column `c` on. A
   constant count is compiled apart from the last numbers of a row. */
#define EVERYWHERE(matrix, call)                                  \
  for (int64_t row = 0; row < (matrix)->rows; row++)              \
    for (int64_t c = 0; c < (matrix)->columns; c += LANES) {      \
      if (c + LANES <= (matrix)->columns) {                       \
        enum { count = LANES };                                   \
        call;                                                     \
      } else {                                                    \
        const int64_t count = (matrix)->columns - c;              \
        call;                                                     \
      }                                                           \
    }

/* `elu(z + bias)` of `functional.elu`. */
INLINE void NAME(activate_part)(const Matrix *z, const float *bias, const Matrix *out, int64_t row,
                                int64_t c, int64_t count) {
  V b = {0};
  memcpy(&b, bias + c, count * sizeof(float));
  NAME(set_row_part)(out, row, c, count, NAME(elu)(NAME(row_part)(z, row, c, count) + b));
}
static void NAME(activate)(const Matrix *z, const float *bias, const Matrix *out) {
  EVERYWHERE(out, NAME(activate_part)(z, bias, out, row, c, count))
}

/* Its slope by its value. */
INLINE V NAME(slope)(V y) {
  return SELECT(LESS(NAME(all)(0.0f), y), NAME(all)(1.0f), y + 1.0f);
}

/* The adjoint of `activate`, by what it gave. */
INLINE void NAME(activate_back_part)(const Matrix *grad, const Matrix *value, const Matrix *out,
                                     int64_t row, int64_t c, int64_t count) {
  V y = NAME(row_part)(value, row, c, count), g = NAME(row_part)(grad, row, c, count);
  NAME(set_row_part)(out, row, c, count, g * NAME(slope)(y));
}
static void NAME(activate_back)(const Matrix *grad, const Matrix *value, const Matrix *out) {
  EVERYWHERE(value, NAME(activate_back_part)(grad, value, out, row, c, count))
}

/* The same for a symmetric layer. Its units are pairs that trade places with left and right: of their
   sums z there are half the sum and half the difference, of their values sum and difference. The
   bias is the same for both. */
INLINE void NAME(activate_both_part)(const Matrix *z, const float *bias, const Matrix *out,
                                     int64_t row, int64_t c, int64_t count) {
  V b = {0};
  memcpy(&b, bias + c, count * sizeof(float));
  V mean = NAME(row_part)(z, row, c, count) + b, off = NAME(row_part)(z + 1, row, c, count);
  V one = NAME(elu)(mean + off), other = NAME(elu)(mean - off);
  NAME(set_row_part)(out, row, c, count, one + other);
  NAME(set_row_part)(out + 1, row, c, count, one - other);
}
static void NAME(activate_both)(const Matrix *z, const float *bias, const Matrix *out) {
  EVERYWHERE(out, NAME(activate_both_part)(z, bias, out, row, c, count))
}

INLINE void NAME(activate_both_back_part)(const Matrix *grad, const Matrix *value, const Matrix *out,
                                          int64_t row, int64_t c, int64_t count) {
  V sum = 0.5f * NAME(row_part)(value, row, c, count);
  V off = 0.5f * NAME(row_part)(value + 1, row, c, count);
  V g = NAME(row_part)(grad, row, c, count), h = NAME(row_part)(grad + 1, row, c, count);
  V one = (g + h) * NAME(slope)(sum + off), other = (g - h) * NAME(slope)(sum - off);
  NAME(set_row_part)(out, row, c, count, one + other);
  NAME(set_row_part)(out + 1, row, c, count, one - other);
}
static void NAME(activate_both_back)(const Matrix *grad, const Matrix *value, const Matrix *out) {
  EVERYWHERE(value, NAME(activate_both_back_part)(grad, value, out, row, c, count))
}
#undef EVERYWHERE

/* Sums over the rows. `many` vectors at a time, so that a row's cache lines are used whole. */
INLINE void NAME(sum_part)(const Matrix *m, float *out, int64_t c, int64_t count, int many) {
  V sums[4] = {{0}};
  for (int64_t row = 0; row < m->rows; row++)
    for (int k = 0; k < many; k++) sums[k] += NAME(row_part)(m, row, c + k * LANES, count);
  for (int k = 0; k < many; k++) memcpy(out + c + k * LANES, sums + k, count * sizeof(float));
}
static void NAME(sum_rows)(const Matrix *m, float *out) {
  int64_t c = 0;
  for (; c + 4 * LANES <= m->columns; c += 4 * LANES) NAME(sum_part)(m, out, c, LANES, 4);
  for (; c + LANES <= m->columns; c += LANES) NAME(sum_part)(m, out, c, LANES, 1);
  if (c < m->columns) NAME(sum_part)(m, out, c, m->columns - c, 1);
}

/* Even numbers of -1 to 1 by counting: what a hash makes of the number's place and the key. */
static void NAME(uniform)(uint32_t key, uint32_t key2, int64_t count, float *out) {
  U place;
  for (int i = 0; i < LANES; i++) ((uint32_t *)&place)[i] = (uint32_t)i;
  for (int64_t c = 0; c < count; c += LANES) {
    U x = (place + (uint32_t)c) * 0x9e3779b9u + key;
    x = (x ^ (x >> 16)) * 0x21f0aaadu;
    x = (x ^ (x >> 15) ^ key2) * 0xd35a2d97u;
    x = x ^ (x >> 15);
    /* The upper 23 bits are those of a number of 2 to 4. */
    V even = FLOATS((x >> 9) | 0x40000000u) - 3.0f;
    if (c + LANES <= count) {
      memcpy(out + c, &even, sizeof even);
    } else {
      memcpy(out + c, &even, (count - c) * sizeof(float));
    }
  }
}

/* --- kinematics --------------------------------------------------------------------------------- */

/* Poses in the pelvis of a tree's links, the pelvis first. `kinematics.LinkTransforms`, down the tree. */
APART void NAME(poses)(const Tree *tree, const V *joint_pos, Pose *poses) {
  for (int64_t i = 1; i < tree->count; i++) {
    const int64_t *link = tree->links + LINK * i;
    const float *fixed = tree->fixed + 12 * i;
    const Pose *parent = poses + link[0];
    Pose *out = poses + i;
    V m[9], s, c;
    NAME(sine_cosine)(joint_pos[link[1]], &s, &c);
    if (link[0] == 0) {
      for (int k = 0; k < 9; k++) m[k] = NAME(all)(fixed[k]);
      for (int k = 0; k < 3; k++) out->p[k] = NAME(all)(fixed[9 + k]);
    } else {
      for (int k = 0; k < 3; k++) {
        const V *row = parent->r + 3 * k;
        out->p[k] = parent->p[k] + row[0] * fixed[9] + row[1] * fixed[10] + row[2] * fixed[11];
        for (int j = 0; j < 3; j++) {
          m[3 * k + j] = row[j];
          if (link[3])
            m[3 * k + j] = row[0] * fixed[j] + row[1] * fixed[3 + j] + row[2] * fixed[6 + j];
        }
      }
    }
    int64_t axis = link[2], b = (axis + 1) % 3, d = (axis + 2) % 3;
    for (int k = 0; k < 9; k += 3) {
      out->r[k + axis] = m[k + axis];
      out->r[k + b] = c * m[k + b] + s * m[k + d];
      out->r[k + d] = c * m[k + d] - s * m[k + b];
    }
  }
}

typedef struct {
  V torque[3], force[3];
} NAME(Load);
#define Load NAME(Load)

/* A pose's gradient as a torque about the pelvis's origin and a force, which its joints feel. */
INLINE void NAME(add_load)(const Pose *pose, const Pose *grad, Load *out) {
  for (int c = 0; c < 3; c++) {
    V column[3] = {pose->r[c], pose->r[3 + c], pose->r[6 + c]};
    V by[3] = {grad->r[c], grad->r[3 + c], grad->r[6 + c]};
    NAME(add_cross)(column, by, out->torque);
  }
  NAME(add_cross)(pose->p, grad->p, out->torque);
  for (int k = 0; k < 3; k++) out->force[k] += grad->p[k];
}

/* The adjoint of `poses`: gradients of joint positions, from the loads on the links, which are used up.
   To turn a joint turns all behind it about its axis. */
APART void NAME(poses_back)(const Tree *tree, const Pose *poses, Load *loads, V *joint_grad) {
  for (int64_t i = tree->count - 1; i > 0; i--) {
    const int64_t *link = tree->links + LINK * i;
    const Pose *pose = poses + i;
    V axis[3] = {pose->r[link[2]], pose->r[3 + link[2]], pose->r[6 + link[2]]};
    V lever[3] = {0}, torque[3];
    NAME(add_cross)(pose->p, loads[i].force, lever);
    for (int k = 0; k < 3; k++) torque[k] = loads[i].torque[k] - lever[k];
    joint_grad[link[1]] += NAME(dot)(axis, torque);
    for (int k = 0; k < 3; k++) {
      loads[link[0]].torque[k] += loads[i].torque[k];
      loads[link[0]].force[k] += loads[i].force[k];
    }
  }
}

/* --- what a state shows ------------------------------------------------------------------------- */

typedef struct {
  Pose now[LOCAL_LINKS], soon[LOCAL_LINKS];
  V lin[3], feet_vel[6];
} NAME(Local);
#define Local NAME(Local)

/* `WorldModel.local`. */
APART void NAME(local)(const Steps *t, const V *s, Local *out) {
  V later[J];
  for (int j = 0; j < J; j++) later[j] = s[Q + j] + (float)t->dt * s[QD + j];
  NAME(poses)(&t->local, s + Q, out->now);
  NAME(poses)(&t->local, later, out->soon);
  for (int k = 0; k < 3; k++) out->lin[k] = (V){0};
  NAME(add_back)(s + ROT, s + LIN, out->lin);
  for (int foot = 0; foot < 2; foot++) {
    const Pose *now = out->now + t->local.picked[1 + foot];
    const Pose *soon = out->soon + t->local.picked[1 + foot];
    V *vel = out->feet_vel + 3 * foot;
    for (int k = 0; k < 3; k++) vel[k] = out->lin[k] + (soon->p[k] - now->p[k]) * (float)t->per_dt;
    NAME(add_cross)(s + ANG, now->p, vel);
  }
}

/* `WorldModel.inputs` but for targets and build, whose columns are left alone. */
APART void NAME(inputs)(const Steps *t, const V *s, const Local *local, V *x) {
  x[0] = s[POS + 2];
  for (int k = 0; k < 3; k++) {
    x[IN_UP + k] = s[ROT + 6 + k];
    x[IN_LIN + k] = local->lin[k];
    x[IN_ANG + k] = s[ANG + k];
  }
  for (int j = 0; j < J; j++) x[IN_Q + j] = s[Q + j], x[IN_QD + j] = s[QD + j];
  for (int foot = 0; foot < 2; foot++) {
    const Pose *pose = local->now + t->local.picked[1 + foot];
    V up[3] = {0};
    NAME(add_back)(pose->r, s + ROT + 6, up);
    V height = NAME(dot)(s + ROT + 6, pose->p) + s[POS + 2] - (float)t->sole_radius;
    for (int c = 0; c < 4; c++) {
      const float *corner = t->soles + 3 * c;
      V h = up[0] * corner[0] + up[1] * corner[1] + up[2] * corner[2] + height;
      x[IN_HEIGHT + 4 * foot + c] = h;
      V depths = h * (float)t->per_depth;
      depths = SELECT(LESS(NAME(all)(88.0f), depths), NAME(all)(88.0f), depths);
      x[IN_NEAR + 4 * foot + c] = 1.0f / (1.0f + NAME(exponential)(depths));
    }
  }
  for (int k = 0; k < 6; k++) x[IN_VEL + k] = local->feet_vel[k];
}

/* What is shown of the reference: its anchor's place and axes. */
INLINE void NAME(shown_anchor)(const Steps *t, int64_t row, int64_t step, V *pos, V *axes) {
  for (int i = 0; i < LANES; i++) {
    const float *frame = reference_frame(t, row + i, step + t->lead);
    const float *place = frame + REF_POS + 3 * t->anchor, *turn = frame + REF_AXES;
    for (int k = 0; k < 3; k++) ((float *)(pos + k))[i] = place[k];
    for (int k = 0; k < 9; k++) ((float *)(axes + k))[i] = turn[k];
  }
}

/* Numbers `first` to `first + count` of the reference's frames, LANES of them at least. */
APART void NAME(reference)(const Steps *t, int64_t row, int64_t ahead, int64_t first,
                            int64_t count, V *out) {
  const float *rows[LANES];
  for (int i = 0; i < LANES; i++) rows[i] = reference_frame(t, row + i, ahead) + first;
  NAME(gather)(rows, count, out);
}

/* `imagination.observation`, of the terms that have a place. */
APART void NAME(observation)(const Steps *t, int64_t row, int64_t step, const V *s,
                              const Local *local, const V *action, const V *default_pos, V *out) {
  const int64_t *at = t->places;
  V place[3], axes[9];
  NAME(shown_anchor)(t, row, step, place, axes);
  if (at[COMMAND] >= 0) NAME(reference)(t, row, step + t->lead, 0, 2 * J, out + at[COMMAND]);
  const Pose *torso = local->now + t->local.picked[0];
  V rot[9], away[3];
  NAME(product)(s + ROT, torso->r, rot);
  for (int k = 0; k < 3; k++)
    away[k] = place[k] - s[POS + k] - NAME(dot)(s + ROT + 3 * k, torso->p);
  for (int r = 0; r < 3; r++) {
    V column[3] = {rot[r], rot[3 + r], rot[6 + r]};
    if (at[ANCHOR_POS] >= 0) out[at[ANCHOR_POS] + r] = NAME(dot)(column, away);
    if (at[ANCHOR_ORI] >= 0)
      for (int c = 0; c < 2; c++)
        out[at[ANCHOR_ORI] + 2 * r + c] = NAME(dot)(column, axes + 3 * c);
  }
  for (int k = 0; k < 3; k++) {
    if (at[BASE_LIN] >= 0) out[at[BASE_LIN] + k] = local->lin[k];
    if (at[BASE_ANG] >= 0) out[at[BASE_ANG] + k] = s[ANG + k];
  }
  for (int j = 0; j < J; j++) {
    if (at[JOINT_POS] >= 0) out[at[JOINT_POS] + j] = s[Q + j] - default_pos[j];
    if (at[JOINT_VEL] >= 0) out[at[JOINT_VEL] + j] = s[QD + j];
    if (at[ACTIONS] >= 0) out[at[ACTIONS] + j] = action[j];
  }
}

/* Inputs of both networks of a block's states after `step` steps. */
APART void NAME(look)(const Steps *t, int64_t block, int64_t step) {
  const V *s = BLOCK(t->states, step, block, STATE);
  int64_t row = block * LANES;
  Local local;
  NAME(local)(t, s, &local);
  if (t->observation_size) {
    V obs[MOST_OBSERVATIONS], extra[MOST_OBSERVATIONS];
    int64_t size = t->observation_size;
    const V *default_pos = BLOCK(t->default_pos, 0, block, J);
    NAME(observation)(t, row, step, s, &local, BLOCK(t->noisy, step, block, J), default_pos, obs);
    if (t->clean.data) {
      Matrix clean = at_step(&t->clean, step);
      for (int64_t d = 0; d < size; d++)
        extra[d] = (obs[d] - t->policy_mean[d]) * t->policy_inverse[d];
      NAME(store)(&clean, row, 0, size, extra);
    }
    if (step == t->steps) return;
    if (t->obs_noise.data) {
      Matrix noise = at_step(&t->obs_noise, step);
      NAME(load)(&noise, row, 0, size, extra);
      for (int64_t d = 0; d < size; d++) obs[d] += extra[d];
    }
    V *offset = BLOCK(t->offsets, 0, block, J);
    for (int j = 0; j < J; j++) offset[j] = (obs[j] - t->nominal_pos[j]) * t->offset_per[j];
    for (int64_t d = 0; d < size; d++) obs[d] = (obs[d] - t->policy_mean[d]) * t->policy_inverse[d];
    NAME(store_sides)(t->policy_in, &t->policy_sides, step, row, WHOLE, obs);
  }
  if (step == t->steps) return;
  V x[INPUTS];
  NAME(inputs)(t, s, &local, x);
  NAME(load)(&t->build, row, 0, INPUTS - IN_BUILD, x + IN_BUILD);
  int targets = t->targets.data != 0;
  if (targets) {
    Matrix target = at_step(&t->targets, step);
    NAME(load)(&target, row, 0, J, x + IN_OFF);
    for (int j = 0; j < J; j++) x[IN_OFF + j] -= s[Q + j];
  }
  for (int d = 0; d < INPUTS; d++)
    if (targets || d < IN_OFF || d >= IN_HEIGHT)
      x[d] = NAME(bounded)((x[d] - t->model_mean[d]) * t->model_inverse[d], -10.0f, 10.0f);
  NAME(store_sides)(t->model_in, &t->model_sides, step, row, targets ? WHOLE : BEFORE, x);
}

/* The gradient of an input before it was scaled and bounded. */
INLINE V NAME(input_back)(const Steps *t, int d, V x, V grad) {
  V scaled = (x - t->model_mean[d]) * t->model_inverse[d];
  V kept = SELECT(LESS(NAME(all)(10.0f), scaled), (V){0}, grad * t->model_inverse[d]);
  return SELECT(LESS(scaled, NAME(all)(-10.0f)), (V){0}, kept);
}

/* The adjoint of `look`: adds to the state's gradient, sets that of the action before. */
APART void NAME(look_back)(const Steps *t, int64_t block, int64_t step) {
  const V *s = BLOCK(t->states, step, block, STATE);
  V *g = BLOCK(t->state_grads, step, block, STATE);
  int64_t row = block * LANES;
  Local local;
  Load loads[LOCAL_LINKS], later[LOCAL_LINKS];
  V lin[3] = {0};
  NAME(local)(t, s, &local);
  memset(loads, 0, sizeof loads), memset(later, 0, sizeof later);

  if (step < t->steps) {
    V x[INPUTS], by[INPUTS];
    NAME(inputs)(t, s, &local, x);
    for (int d = IN_BUILD; d < INPUTS; d++) x[d] = (V){0}; /* no state's gradient comes of them */
    NAME(load_sides)(t->model_in_grad, &t->model_sides, row, WHOLE, by);
    if (t->targets.data) {
      Matrix target = at_step(&t->targets, step);
      NAME(load)(&target, row, 0, J, x + IN_OFF);
      for (int j = 0; j < J; j++) x[IN_OFF + j] -= s[Q + j];
    } else { /* `act_back` has done those of the targets */
      for (int j = 0; j < J; j++) by[IN_OFF + j] = x[IN_OFF + j] = (V){0};
    }
    for (int d = 0; d < INPUTS; d++) by[d] = NAME(input_back)(t, d, x[d], by[d]);
    V up[3] = {0}, z = by[0];
    for (int k = 0; k < 3; k++) {
      up[k] += by[IN_UP + k];
      lin[k] += by[IN_LIN + k];
      g[ANG + k] += by[IN_ANG + k];
    }
    for (int j = 0; j < J; j++) {
      g[Q + j] += by[IN_Q + j] - by[IN_OFF + j];
      g[QD + j] += by[IN_QD + j];
    }
    for (int foot = 0; foot < 2; foot++) {
      int64_t link = t->local.picked[1 + foot];
      const Pose *pose = local.now + link;
      Pose to;
      memset(&to, 0, sizeof to);
      V corner_sum[3] = {0}, height = {0};
      for (int c = 0; c < 4; c++) {
        int i = 4 * foot + c;
        V near = x[IN_NEAR + i];
        V h = by[IN_HEIGHT + i] - by[IN_NEAR + i] * near * (1.0f - near) * (float)t->per_depth;
        height += h;
        for (int k = 0; k < 3; k++) corner_sum[k] += h * t->soles[3 * c + k];
      }
      z += height;
      NAME(add_turned)(pose->r, corner_sum, up);
      NAME(add_outer)(s + ROT + 6, corner_sum, to.r);
      const V *vel = by + IN_VEL + 3 * foot;
      for (int k = 0; k < 3; k++) {
        up[k] += height * pose->p[k];
        lin[k] += vel[k];
        V late = vel[k] * (float)t->per_dt;
        to.p[k] = height * s[ROT + 6 + k] - late;
        later[link].force[k] += late;
      }
      NAME(add_cross)(pose->p, vel, g + ANG);
      NAME(add_cross)(vel, s + ANG, to.p);
      NAME(add_cross)(local.soon[link].p, later[link].force, later[link].torque);
      NAME(add_load)(pose, &to, loads + link);
    }
    g[POS + 2] += z;
    for (int k = 0; k < 3; k++) g[ROT + 6 + k] += up[k];
  }

  if (t->observation_size) {
    const int64_t *at = t->places;
    V by[MOST_OBSERVATIONS];
    int64_t size = t->observation_size;
    if (step < t->steps) {
      NAME(load_sides)(t->policy_in_grad, &t->policy_sides, row, WHOLE, by);
    } else {
      for (int64_t d = 0; d < size; d++) by[d] = (V){0};
    }
    if (t->clean_grad.data) {
      V extra[MOST_OBSERVATIONS];
      Matrix grads = at_step(&t->clean_grad, step);
      NAME(load)(&grads, row, 0, size, extra);
      for (int64_t d = 0; d < size; d++) by[d] += extra[d];
    }
    for (int64_t d = 0; d < size; d++) by[d] = by[d] * t->policy_inverse[d];
    if (step < t->steps) { /* the offset is of the first columns */
      const V *action = BLOCK(t->offsets, 0, block, J);
      for (int j = 0; j < J; j++) by[j] += action[j] * t->offset_per[j];
    }
    int64_t link = t->local.picked[0];
    const Pose *torso = local.now + link;
    V rot[9], place[3], axes[9], away[3], rot_by[9] = {0}, away_by[3] = {0};
    NAME(shown_anchor)(t, row, step, place, axes);
    NAME(product)(s + ROT, torso->r, rot);
    for (int k = 0; k < 3; k++)
      away[k] = place[k] - s[POS + k] - NAME(dot)(s + ROT + 3 * k, torso->p);
    if (at[ANCHOR_POS] >= 0) {
      NAME(add_outer)(away, by + at[ANCHOR_POS], rot_by);
      NAME(add_turned)(rot, by + at[ANCHOR_POS], away_by);
    }
    if (at[ANCHOR_ORI] >= 0)
      for (int c = 0; c < 2; c++) {
        const V *turn = by + at[ANCHOR_ORI] + c;
        V columns[3] = {turn[0], turn[2], turn[4]};
        NAME(add_outer)(axes + 3 * c, columns, rot_by);
      }
    Pose to;
    memset(&to, 0, sizeof to);
    V down[3] = {-away_by[0], -away_by[1], -away_by[2]};
    for (int k = 0; k < 3; k++) g[POS + k] += down[k];
    NAME(add_outer)(down, torso->p, g + ROT);
    NAME(add_back)(s + ROT, down, to.p);
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 3; j++) {
        g[ROT + 3 * i + j] += NAME(dot)(rot_by + 3 * i, torso->r + 3 * j);
        to.r[3 * i + j] = s[ROT + i] * rot_by[j] + s[ROT + 3 + i] * rot_by[3 + j] +
                          s[ROT + 6 + i] * rot_by[6 + j];
      }
    NAME(add_load)(torso, &to, loads + link);
    for (int k = 0; k < 3; k++) {
      if (at[BASE_LIN] >= 0) lin[k] += by[at[BASE_LIN] + k];
      if (at[BASE_ANG] >= 0) g[ANG + k] += by[at[BASE_ANG] + k];
    }
    V *before = BLOCK(t->noisy_grads, 0, block, J);
    for (int j = 0; j < J; j++) {
      if (at[JOINT_POS] >= 0) g[Q + j] += by[at[JOINT_POS] + j];
      if (at[JOINT_VEL] >= 0) g[QD + j] += by[at[JOINT_VEL] + j];
      before[j] = (V){0};
      if (at[ACTIONS] >= 0) before[j] = by[at[ACTIONS] + j];
    }
  }

  NAME(add_turned)(s + ROT, lin, g + LIN);
  NAME(add_outer)(s + LIN, lin, g + ROT);
  V soon[J] = {0};
  NAME(poses_back)(&t->local, local.now, loads, g + Q);
  NAME(poses_back)(&t->local, local.soon, later, soon);
  for (int j = 0; j < J; j++) {
    g[Q + j] += soon[j];
    g[QD + j] += soon[j] * (float)t->dt;
  }
}

/* --- integration -------------------------------------------------------------------------------- */

/* `world_model.turned` is R + R M; M of the vector v. */
INLINE void NAME(change)(const V *v, V *a, V *b, V *m) {
  V square = NAME(dot)(v, v);
  *a = 1.0f - square * (1.0f / 6), *b = 0.5f - square * (1.0f / 24);
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) m[3 * i + j] = *b * v[i] * v[j];
  for (int i = 0; i < 3; i++) m[4 * i] -= *b * square;
  m[7] += *a * v[0], m[5] -= *a * v[0];
  m[2] += *a * v[1], m[6] -= *a * v[1];
  m[3] += *a * v[2], m[1] -= *a * v[2];
}

/* `WorldModel.integrate`, by what the networks put out. */
APART void NAME(integrate)(const Steps *t, int64_t block, int64_t step) {
  const V *s = BLOCK(t->states, step, block, STATE);
  V *next = BLOCK(t->states, step + 1, block, STATE), *rates = BLOCK(t->rates, step, block, OUTPUTS);
  V linear[OUTPUTS];
  NAME(load_sides)(t->last_out, &t->rate_sides, block * LANES, WHOLE, rates);
  NAME(load_sides)(t->linear_out, &t->rate_sides, block * LANES, WHOLE, linear);
  for (int d = 0; d < OUTPUTS; d++)
    rates[d] = (rates[d] + linear[d] + t->out_bias[d]) * t->out_scale[d];
  const V *dlin = rates, *dang = rates + 3, *dq = rates + 6;
  const V *plin = dq + J, *pang = plin + 3, *pq = pang + 3;
  V moved[3] = {0}, more[3] = {0}, turn[3], m[9], a, b;
  NAME(add_turned)(s + ROT, dlin, moved);
  NAME(add_turned)(s + ROT, plin, more);
  for (int k = 0; k < 3; k++) {
    next[POS + k] = s[POS + k] + (float)t->dt * (s[LIN + k] + (float)t->late * moved[k] + more[k]);
    next[LIN + k] = s[LIN + k] + moved[k];
    next[ANG + k] = s[ANG + k] + dang[k];
    turn[k] = (float)t->dt * (s[ANG + k] + (float)t->late * dang[k] + pang[k]);
  }
  NAME(change)(turn, &a, &b, m);
  NAME(product)(s + ROT, m, next + ROT);
  for (int k = 0; k < 9; k++) next[ROT + k] += s[ROT + k];
  for (int j = 0; j < J; j++) {
    next[Q + j] = s[Q + j] + (float)t->dt * (s[QD + j] + (float)t->late * dq[j] + pq[j]);
    next[QD + j] = s[QD + j] + dq[j];
  }
}

/* Its adjoint: from the next state's gradient to that of the networks' output, and this state's. */
APART void NAME(integrate_back)(const Steps *t, int64_t block, int64_t step) {
  const V *s = BLOCK(t->states, step, block, STATE);
  const V *rates = BLOCK(t->rates, step, block, OUTPUTS);
  const V *next = BLOCK(t->state_grads, step + 1, block, STATE);
  V *g = BLOCK(t->state_grads, step, block, STATE);
  V by[OUTPUTS], turn[3], m[9], a, b;
  const V *dlin = rates, *dang = rates + 3, *plin = rates + 6 + J, *pang = plin + 3;
  V *dlin_by = by, *dang_by = by + 3, *dq_by = by + 6;
  V *plin_by = dq_by + J, *pang_by = plin_by + 3, *pq_by = pang_by + 3;
  /* The turn. */
  for (int k = 0; k < 3; k++) turn[k] = (float)t->dt * (s[ANG + k] + (float)t->late * dang[k] + pang[k]);
  NAME(change)(turn, &a, &b, m);
  V m_by[9];
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) {
      m_by[3 * i + j] = s[ROT + i] * next[ROT + j] + s[ROT + 3 + i] * next[ROT + 3 + j] +
                        s[ROT + 6 + i] * next[ROT + 6 + j];
      g[ROT + 3 * i + j] += next[ROT + 3 * i + j] + NAME(dot)(next + ROT + 3 * i, m + 3 * j);
    }
  V trace = m_by[0] + m_by[4] + m_by[8], square = NAME(dot)(turn, turn);
  V skew[3] = {m_by[7] - m_by[5], m_by[2] - m_by[6], m_by[3] - m_by[1]}, both[3], other[3] = {0};
  for (int k = 0; k < 3; k++) both[k] = NAME(dot)(m_by + 3 * k, turn);
  V b_by = NAME(dot)(turn, both) - square * trace, a_by = NAME(dot)(turn, skew);
  NAME(add_back)(m_by, turn, other);
  V square_by = -b * trace - a_by * (1.0f / 6) - b_by * (1.0f / 24);
  for (int k = 0; k < 3; k++) {
    V turn_by = a * skew[k] + b * (both[k] + other[k]) + 2.0f * square_by * turn[k];
    V rate = (float)t->dt * turn_by;
    g[ANG + k] += next[ANG + k] + rate;
    dang_by[k] = next[ANG + k] + (float)t->late * rate;
    pang_by[k] = rate;
  }
  /* The rest. */
  V moved_by[3], more_by[3];
  for (int k = 0; k < 3; k++) {
    g[POS + k] += next[POS + k];
    more_by[k] = (float)t->dt * next[POS + k];
    g[LIN + k] += next[LIN + k] + more_by[k];
    moved_by[k] = next[LIN + k] + (float)t->late * more_by[k];
    dlin_by[k] = plin_by[k] = (V){0};
  }
  NAME(add_back)(s + ROT, moved_by, dlin_by);
  NAME(add_back)(s + ROT, more_by, plin_by);
  NAME(add_outer)(moved_by, dlin, g + ROT);
  NAME(add_outer)(more_by, plin, g + ROT);
  for (int j = 0; j < J; j++) {
    V rate = (float)t->dt * next[Q + j];
    g[Q + j] += next[Q + j];
    g[QD + j] += next[QD + j] + rate;
    dq_by[j] = next[QD + j] + (float)t->late * rate;
    pq_by[j] = rate;
  }
  for (int d = 0; d < OUTPUTS; d++) by[d] = by[d] * t->out_scale[d];
  NAME(store_sides)(t->out_grad, &t->rate_sides, step, block * LANES, WHOLE, by);
  NAME(store_sides)(t->beside_grad, &t->rate_sides, step, block * LANES, WHOLE, by);
}

/* --- the kernels of a step ---------------------------------------------------------------------- */

/* From the networks' output at `step - 1` to the inputs at `step`; at 0 from where the robots start. */
static void NAME(advance)(const Steps *t, int64_t step) {
  for (int64_t block = 0; block < t->blocks; block++) {
    if (step == 0) {
      V *s = BLOCK(t->states, 0, block, STATE);
      for (int p = 0; p < PARTS; p++)
        NAME(load)(&t->starts[p], block * LANES, 0, t->starts[p].columns, s + PART_AT[p]);
      if (t->observation_size) {
        NAME(load)(&t->default_in, block * LANES, 0, J, BLOCK(t->default_pos, 0, block, J));
        NAME(load)(&t->last_action, block * LANES, 0, J, BLOCK(t->noisy, 0, block, J));
        NAME(load)(&t->last_action, block * LANES, 0, J, BLOCK(t->actions, 0, block, J));
      }
    } else {
      NAME(integrate)(t, block, step - 1);
    }
    if (step < t->steps || t->clean.data) NAME(look)(t, block, step);
  }
}

/* Its adjoint. The state's own gradient must be there already. */
static void NAME(advance_back)(const Steps *t, int64_t step) {
  for (int64_t block = 0; block < t->blocks; block++) {
    if (step < t->steps || t->clean_grad.data) {
      NAME(look_back)(t, block, step);
    } else if (t->observation_size) {
      memset(BLOCK(t->noisy_grads, 0, block, J), 0, J * sizeof(V));
    }
    NAME(integrate_back)(t, block, step - 1);
  }
}

/* The policy's mean becomes an action, with noise a target, and the model's inputs. */
static void NAME(act)(const Steps *t, int64_t step) {
  Matrix noise = at_step(&t->action_noise, step);
  for (int64_t block = 0; block < t->blocks; block++) {
    int64_t row = block * LANES;
    const V *s = BLOCK(t->states, step, block, STATE), *offset = BLOCK(t->offsets, 0, block, J);
    const V *default_pos = BLOCK(t->default_pos, 0, block, J);
    V *action = BLOCK(t->actions, step + 1, block, J), *noisy = BLOCK(t->noisy, step + 1, block, J);
    V x[INPUTS];
    NAME(load_sides)(t->mean_out, &t->mean_sides, row, WHOLE, action);
    NAME(load)(&noise, row, 0, J, noisy);
    for (int j = 0; j < J; j++) {
      int d = IN_OFF + j;
      action[j] += t->mean_bias[j] + offset[j];
      noisy[j] += action[j];
      V off = default_pos[j] + t->action_scale[j] * noisy[j] - s[Q + j];
      x[d] = NAME(bounded)((off - t->model_mean[d]) * t->model_inverse[d], -10.0f, 10.0f);
    }
    NAME(store_sides)(t->model_in, &t->model_sides, step, row, BEHIND, x);
  }
}

/* Its adjoint: the gradient of the mean, kept for the offset, and of joint positions. */
static void NAME(act_back)(const Steps *t, int64_t step) {
  for (int64_t block = 0; block < t->blocks; block++) {
    int64_t row = block * LANES;
    const V *s = BLOCK(t->states, step, block, STATE);
    const V *default_pos = BLOCK(t->default_pos, 0, block, J);
    const V *noisy = BLOCK(t->noisy, step + 1, block, J);
    const V *noisy_by = BLOCK(t->noisy_grads, 0, block, J);
    const V *action_by = BLOCK(t->action_grads, step + 1, block, J);
    V *g = BLOCK(t->state_grads, step, block, STATE), *kept = BLOCK(t->offsets, 0, block, J);
    V by[INPUTS];
    NAME(load_sides)(t->model_in_grad, &t->model_sides, row, BEHIND, by);
    for (int j = 0; j < J; j++) {
      V off = default_pos[j] + t->action_scale[j] * noisy[j] - s[Q + j];
      V target_by = NAME(input_back)(t, IN_OFF + j, off, by[IN_OFF + j]);
      g[Q + j] -= target_by;
      kept[j] = action_by[j] + noisy_by[j] + t->action_scale[j] * target_by;
    }
    NAME(store_sides)(t->mean_grad, &t->mean_sides, step, row, WHOLE, kept);
  }
}

/* --- what imagined steps cost ------------------------------------------------------------------- */

typedef struct {
  Pose local[ALL_LINKS];
  V error[TRACKED_LINKS][12]; /* rotation, then place: less the reference's */
} NAME(Frame);
#define Frame NAME(Frame)

/* The tracked links less the reference's: `WorldKinematics`, `ReferenceTables.links_at`. */
APART void NAME(frame)(const Steps *t, const Costs *c, int64_t block, int64_t step, Frame *out) {
  const V *s = BLOCK(t->states, step, block, STATE);
  V ref[7 * TRACKED_LINKS];
  NAME(reference)(t, block * LANES, step, REF_POS, 7 * TRACKED_LINKS, ref);
  memset(out->local, 0, sizeof(Pose));
  for (int k = 0; k < 9; k += 4) out->local[0].r[k] = NAME(all)(1.0f);
  NAME(poses)(&c->tree, s + Q, out->local);
  for (int i = 0; i < TRACKED_LINKS; i++) {
    const Pose *pose = out->local + c->tree.picked[i];
    const V *p = ref + 3 * i, *q = ref + 3 * TRACKED_LINKS + 4 * i;
    V *e = out->error[i], w = q[0], x = q[1], y = q[2], z = q[3];
    NAME(product)(s + ROT, pose->r, e);
    e[0] -= 1.0f - 2.0f * (y * y + z * z);
    e[1] -= 2.0f * (x * y - w * z);
    e[2] -= 2.0f * (x * z + w * y);
    e[3] -= 2.0f * (x * y + w * z);
    e[4] -= 1.0f - 2.0f * (x * x + z * z);
    e[5] -= 2.0f * (y * z - w * x);
    e[6] -= 2.0f * (x * z - w * y);
    e[7] -= 2.0f * (y * z + w * x);
    e[8] -= 1.0f - 2.0f * (x * x + y * y);
    for (int k = 0; k < 3; k++)
      e[9 + k] = s[POS + k] + NAME(dot)(s + ROT + 3 * k, pose->p) - p[k];
  }
}

/* From the gradient of a frame's errors to that of the state. */
APART void NAME(frame_back)(const Steps *t, const Costs *c, int64_t block, int64_t step,
                             const Frame *frame, V by[TRACKED_LINKS][12]) {
  const V *s = BLOCK(t->states, step, block, STATE);
  V *g = BLOCK(t->state_grads, step, block, STATE);
  Load loads[ALL_LINKS];
  memset(loads, 0, sizeof loads);
  for (int i = 0; i < TRACKED_LINKS; i++) {
    int64_t link = c->tree.picked[i];
    const Pose *pose = frame->local + link;
    Pose to;
    memset(&to, 0, sizeof to);
    for (int k = 0; k < 3; k++) g[POS + k] += by[i][9 + k];
    NAME(add_outer)(by[i] + 9, pose->p, g + ROT);
    NAME(add_back)(s + ROT, by[i] + 9, to.p);
    for (int k = 0; k < 3; k++)
      for (int j = 0; j < 3; j++) {
        g[ROT + 3 * k + j] += NAME(dot)(by[i] + 3 * k, pose->r + 3 * j);
        to.r[3 * k + j] = s[ROT + k] * by[i][j] + s[ROT + 3 + k] * by[i][3 + j] +
                          s[ROT + 6 + k] * by[i][6 + j];
      }
    NAME(add_load)(pose, &to, loads + link);
  }
  NAME(poses_back)(&c->tree, frame->local, loads, g + Q);
}

/* The squares of `imagination.SquareErrors` of two frames, one step apart. */
APART void NAME(squares)(const Costs *c, const Frame *last, const Frame *now, V *out) {
  const int64_t anchor = c->anchor;
  const V *own = now->error[anchor], *from = last->error[anchor];
  for (int k = 0; k < TRACKED; k++) out[k] = (V){0};
  for (int i = 0; i < TRACKED_LINKS; i++) {
    const V *e = now->error[i], *b = last->error[i];
    V turn = {0}, turned = {0};
    for (int k = 0; k < 9; k++) {
      V change = (e[k] - b[k]) * (float)c->per_dt;
      turn += e[k] * e[k], turned += change * change;
    }
    if (i == anchor) out[1] = 0.5f * turn;
    out[3] += 0.5f * turn, out[5] += 0.5f * turned;
    for (int k = 9; k < 12; k++) {
      V away = e[k] - own[k], change = (e[k] - b[k]) * (float)c->per_dt + (float)c->recovery * from[k];
      out[2] += away * away, out[4] += change * change;
    }
  }
  for (int k = 2; k < TRACKED; k++) out[k] *= 1.0f / TRACKED_LINKS;
  out[0] = NAME(dot)(own + 9, own + 9);
}

/* Their adjoint. */
APART void NAME(squares_back)(const Costs *c, const Frame *last, const Frame *now, const V *by,
                               V last_by[TRACKED_LINKS][12], V now_by[TRACKED_LINKS][12]) {
  const int64_t anchor = c->anchor;
  const V *own = now->error[anchor], *from = last->error[anchor];
  const float share = 1.0f / TRACKED_LINKS;
  for (int i = 0; i < TRACKED_LINKS; i++) {
    const V *e = now->error[i], *b = last->error[i];
    V turn = by[3] * share, rate = by[5] * (share * (float)c->per_dt * (float)c->per_dt);
    if (i == anchor) turn += by[1];
    for (int k = 0; k < 9; k++) {
      V change = (e[k] - b[k]) * rate;
      now_by[i][k] += turn * e[k] + change;
      last_by[i][k] -= change;
    }
    V off = by[2] * (2.0f * share), vel = by[4] * (2.0f * share);
    for (int k = 9; k < 12; k++) {
      V away = (e[k] - own[k]) * off;
      V change = ((e[k] - b[k]) * (float)c->per_dt + (float)c->recovery * from[k]) * vel;
      now_by[i][k] += away + change * (float)c->per_dt;
      now_by[anchor][k] -= away;
      last_by[i][k] -= change * (float)c->per_dt;
      last_by[anchor][k] += change * (float)c->recovery;
    }
  }
  for (int k = 9; k < 12; k++) now_by[anchor][k] += 2.0f * by[0] * own[k];
}

INLINE void NAME(set_row)(float *row, int64_t first, int64_t rows, V x) {
  int64_t count = rows - first < LANES ? rows - first : LANES;
  memcpy(row + first, &x, count * sizeof(float));
}

INLINE V NAME(of_row)(const float *row, int64_t first, int64_t rows) {
  V x = {0};
  int64_t count = rows - first < LANES ? rows - first : LANES;
  memcpy(&x, row + first, count * sizeof(float));
  return x;
}

/* `tracking_loss` and `penalties` of all steps; where `grad` is given their adjoint instead, which
   sets the gradients of the states and actions. */
static void NAME(costs)(const Steps *t, const Costs *c) {
  for (int64_t block = 0; block < t->blocks; block++) {
    Frame frames[2];
    V by[2][TRACKED_LINKS][12];
    const int64_t first = block * LANES, rows = t->batch;
    NAME(frame)(t, c, block, 0, &frames[0]);
    if (c->grad) {
      memset(by, 0, sizeof by);
      memset(BLOCK(t->state_grads, 0, block, STATE), 0, STATE * sizeof(V));
      memset(BLOCK(t->action_grads, 0, block, J), 0, J * sizeof(V));
    }
    for (int64_t step = 1; step <= t->steps; step++) {
      Frame *last = &frames[(step - 1) % 2], *now = &frames[step % 2];
      V squares[TRACKED];
      const V *q = BLOCK(t->states, step, block, STATE) + Q;
      const V *action = BLOCK(t->actions, step, block, J);
      const V *before = BLOCK(t->actions, step - 1, block, J);
      NAME(frame)(t, c, block, step, now);
      NAME(squares)(c, last, now, squares);
      if (!c->grad) {
        V cost = {0}, outside = {0}, rate = {0};
        for (int k = 0; k < TRACKED; k++)
          cost += c->weights[k] * (NAME(root)(1.0f + squares[k] * c->per_width[k]) - 1.0f);
        for (int j = 0; j < J; j++) {
          V off = q[j] - NAME(bounded)(q[j], c->soft_low[j], c->soft_high[j]);
          outside += FLOATS(BITS(off) & 0x7fffffff);
          V change = action[j] - before[j];
          rate += change * change;
        }
        cost -= (float)c->joint_limit * outside + (float)c->action_rate * rate;
        NAME(set_row)(c->cost + (step - 1) * rows, first, rows, cost);
        NAME(set_row)(c->distance + (step - 1) * rows, first, rows, NAME(root)(squares[0]));
        continue;
      }
      V grad = NAME(of_row)(c->grad + (step - 1) * rows, first, rows), slopes[TRACKED];
      for (int k = 0; k < TRACKED; k++)
        slopes[k] = grad * (0.5f * c->weights[k] * c->per_width[k]) /
                    NAME(root)(1.0f + squares[k] * c->per_width[k]);
      V(*now_by)[12] = by[step % 2], (*last_by)[12] = by[(step - 1) % 2];
      V *g = BLOCK(t->state_grads, step, block, STATE);
      memset(now_by, 0, sizeof by[0]);
      memset(g, 0, STATE * sizeof(V));
      NAME(squares_back)(c, last, now, slopes, last_by, now_by);
      if (step > 1) NAME(frame_back)(t, c, block, step - 1, last, last_by);
      if (step == t->steps) NAME(frame_back)(t, c, block, step, now, now_by);
      V limit = grad * (float)c->joint_limit, rate = grad * (2.0f * (float)c->action_rate);
      V *action_by = BLOCK(t->action_grads, step, block, J);
      V *before_by = BLOCK(t->action_grads, step - 1, block, J);
      for (int j = 0; j < J; j++) {
        g[Q + j] += SELECT(LESS(q[j], NAME(all)(c->soft_low[j])), limit, (V){0});
        g[Q + j] -= SELECT(LESS(NAME(all)(c->soft_high[j]), q[j]), limit, (V){0});
        V change = rate * (action[j] - before[j]);
        action_by[j] = -change;
        before_by[j] += change;
      }
    }
  }
}

/* --- how far off a model is --------------------------------------------------------------------- */

/* The cost of `wm_track.model_loss` of each step and robot, and mean absolute errors of parts; where
   `grad` is given the adjoint instead, which sets the gradients of the states. */
static void NAME(misses)(const Steps *t, const Misses *e) {
  const int64_t rows = t->batch;
  for (int64_t block = 0; block < t->blocks; block++) {
    const int64_t first = block * LANES;
    if (e->grad) memset(BLOCK(t->state_grads, 0, block, STATE), 0, STATE * sizeof(V));
    for (int64_t step = 1; step <= t->steps; step++) {
      const V *s = BLOCK(t->states, step, block, STATE);
      V *g = e->grad ? BLOCK(t->state_grads, step, block, STATE) : 0;
      V cost = {0}, grad = {0}, truth[29];
      if (g) grad = NAME(of_row)(e->grad + (step - 1) * rows, first, rows);
      for (int p = 0; p < PARTS; p++) {
        Matrix part = at_step(&e->truth[p], step);
        NAME(load)(&part, first, 0, part.columns, truth);
        V sum = {0};
        for (int64_t d = 0; d < part.columns; d++) {
          int64_t i = PART_AT[p] + d;
          V off = s[i] - truth[d], scaled = off * e->per_unit[i];
          V root = NAME(root)(1.0f + scaled * scaled);
          if (g) g[i] = grad * (e->weights[i] * e->per_unit[i]) * scaled / root;
          cost += e->weights[i] * (root - 1.0f);
          sum += FLOATS(BITS(off) & 0x7fffffff);
        }
        if (!g)
          NAME(set_row)(e->off + ((step - 1) * PARTS + p) * rows, first, rows,
                        sum * (1.0f / (float)part.columns));
      }
      if (!g) NAME(set_row)(e->cost + (step - 1) * rows, first, rows, cost);
    }
  }
}

#undef Pose
#undef Load
#undef Local
#undef Frame
#undef V
#undef U
#undef WHOLE
#undef BEFORE
#undef BEHIND
