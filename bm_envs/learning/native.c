/* All of an imagined step that is no matrix product, forwards and backwards, on the processor.

   What `world_model.py`, `imagination.py` and `kinematics.py` say in torch: those files are the
   definition, and what runs on a GPU or without a compiler; tests compare values and gradients.
   The derivatives are written by hand. The kernels themselves are in `kernels.h`. Here is what they
   are given, and which instructions they are compiled for; `compiled.py` calls this file's
   functions. All fields are eight bytes wide, so that structures here and there are laid out alike
   on every machine. */

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#pragma GCC diagnostic ignored "-Wpsabi" /* all that takes a vector is inlined */
#endif

#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* For a robot of another number of joints a file like `native_23.c` names these and includes this one. */
#ifndef J
#define J 29           /* joints */
#define LOCAL_LINKS 16 /* pelvis, legs and waist */
#define NATIVE(name) native_##name
#endif
#define TRACKED_LINKS 14 /* tracked bodies */
#define ALL_LINKS (J + 1)
#define TRACKED 6 /* rewards of tracking */
#define PARTS 6   /* of a state */
#define MOST_OBSERVATIONS 256
#define MOST_NUMBERS 256 /* that a network takes or gives */

/* A state: the parts of `world_model.State`. */
enum { POS = 0, ROT = 3, LIN = 12, ANG = 15, Q = 18, QD = Q + J, STATE = QD + J };
static const int64_t PART_AT[PARTS] = {POS, ROT, LIN, ANG, Q, QD};
/* Inputs of the model, see `WorldModel.inputs`, and how many outputs it has. */
enum {
  IN_UP = 1, IN_LIN = 4, IN_ANG = 7, IN_Q = 10, IN_QD = IN_Q + J, IN_OFF = IN_QD + J, IN_HEIGHT = IN_OFF + J,
  IN_NEAR = IN_HEIGHT + 8, IN_VEL = IN_NEAR + 8, IN_BUILD = IN_VEL + 6, INPUTS = IN_BUILD + 4,
  OUTPUTS = 2 * (J + 6)
};
/* A row of the reference's table, see `rows.Reference`. */
enum { REF_POS = 2 * J, REF_AXES = 2 * J + 13 * TRACKED_LINKS, REFERENCE = REF_AXES + 9 };
/* Terms of an observation, in the order of `compiled.TERMS`. */
enum { COMMAND, ANCHOR_POS, ANCHOR_ORI, BASE_LIN, BASE_ANG, JOINT_POS, JOINT_VEL, ACTIONS, TERMS };

/* A link of a tree: parent, joint, axis (0 to 2), and whether it is turned against its parent. */
#define LINK 4

typedef struct {
  int64_t count; /* links, the pelvis included, which is the first; parents before children */
  const int64_t *links;
  const float *fixed;    /* 12 a link: fixed rotation, place in the parent */
  const int64_t *picked; /* links that are asked for */
} Tree;

/* Rows of float32, or of bfloat16; `stride` numbers from row to row, `step` from step to step. */
typedef struct {
  void *data;
  int64_t rows, columns, stride, step, bfloat16;
} Matrix;

/* How a network has its inputs, or outputs: in two parts, the numbers that keep their sign where left
   and right change places and those that lose it, or all in the first. Number k of a part is
   `x[first[k]] + factor[k] * x[second[k]]` of plain numbers x. The second part stands behind the
   first one. `split` is where the targets begin in the parts of the model's inputs. */
typedef struct {
  int64_t count[2], split[2];
  const int64_t *first, *second;
  const float *factor;
} Sides;

/* H steps of B robots. A float array without another comment is [steps, blocks, numbers, LANES]. */
typedef struct {
  int64_t batch, blocks, steps;
  Tree local;
  const float *soles; /* [4, 3] */
  double dt, per_dt, late, sole_radius, per_depth;
  float *states, *state_grads, *rates;
  Matrix starts[PARTS];
  /* The model. Means and the like are a number a column. */
  const float *model_mean, *model_inverse, *out_scale, *out_bias;
  Sides model_sides, rate_sides;
  Matrix model_in[2], model_in_grad[2], last_out[2], linear_out[2], out_grad[2], beside_grad[2];
  Matrix targets; /* where they are recorded; else they are the policy's */
  /* The policy; there is none where `observation_size` is 0. */
  int64_t observation_size, lead, anchor;
  int64_t places[TERMS]; /* of the terms in the observation; -1: not there */
  const float *reference;
  const int64_t *row, *last_row; /* [batch] */
  const float *policy_mean, *policy_inverse, *nominal_pos, *offset_per, *action_scale, *mean_bias;
  Sides policy_sides, mean_sides;
  Matrix policy_in[2], policy_in_grad[2], mean_out[2], mean_grad[2], clean, clean_grad;
  Matrix obs_noise, action_noise, default_in, last_action, build;
  float *default_pos, *offsets, *noisy_grads; /* of one step */
  float *actions, *action_grads, *noisy;
} Steps;

/* What imagined steps cost: `cost`, `distance` and `grad` are [steps, batch]. */
typedef struct {
  Tree tree;
  int64_t anchor;
  double per_dt, recovery, joint_limit, action_rate;
  const float *weights, *per_width, *soft_low, *soft_high;
  float *cost, *distance;
  const float *grad;
} Costs;

/* How far off predictions are: `cost` and `grad` are [steps, batch], `off` [steps, PARTS, batch]. */
typedef struct {
  Matrix truth[PARTS];
  const float *weights, *per_unit; /* [STATE] */
  float *cost, *off;
  const float *grad;
} Misses;

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline)) /* inlined everywhere it takes minutes to compile */
#else
#define INLINE static __inline
#define APART static
#endif

INLINE float widened(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float out;
  memcpy(&out, &bits, sizeof out);
  return out;
}

INLINE uint16_t rounded(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE Matrix at_step(const Matrix *m, int64_t step) {
  Matrix out = *m;
  out.data = (char *)m->data + step * m->step * (m->bfloat16 ? 2 : 4);
  return out;
}

/* The reference's frame of a robot, some steps on; behind the clip's end the last one. */
INLINE const float *reference_frame(const Steps *t, int64_t robot, int64_t ahead) {
  if (robot >= t->batch) robot = t->batch - 1;
  int64_t row = t->row[robot] + ahead, last = t->last_row[robot];
  return t->reference + (row < last ? row : last) * REFERENCE;
}

#define BLOCK(array, step, block, numbers) ((V *)(array) + ((step) * t->blocks + (block)) * (numbers))
#define ROUNDING 12582912.0f /* 1.5 * 2^23: what is added to it is rounded to a whole number */

#if defined(__GNUC__)
#define BITS(x) ((U)(x))
#define FLOATS(x) ((V)(x))
#define LESS(a, b) ((U)((a) < (b)))
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLED __builtin_shufflevector
#endif
#endif
#define LANES 4
#else
#define LANES 1
#define BITS(x) bits_of(x)
#define FLOATS(x) float_of(x)
#define LESS(a, b) (0u - (uint32_t)((a) < (b)))
INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
INLINE float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
#endif
#define SELECT(mask, a, b) FLOATS((BITS(a) & (mask)) | (BITS(b) & ~(mask)))

/* LANES is how many numbers a register holds. Compilers take wider vectors apart, comparisons even
   number by number. */
#define NAME(name) name##_plain
enum { LANES_plain = LANES };
#include "kernels.h"
#undef NAME
#undef LANES

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define CHOICE
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
#define NAME(name) name##_avx2
#define LANES 8
enum { LANES_avx2 = LANES };
#include "kernels.h"
#undef NAME
#undef LANES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,bmi,bmi2,prefer-vector-width=512")
#define NAME(name) name##_avx512
#define LANES 16
enum { LANES_avx512 = LANES };
#include "kernels.h"
#undef NAME
#undef LANES
#pragma GCC pop_options
#endif

typedef struct {
  int64_t lanes;
  void (*activate)(const Matrix *, const float *, const Matrix *);
  void (*activate_back)(const Matrix *, const Matrix *, const Matrix *);
  void (*activate_both)(const Matrix *, const float *, const Matrix *);
  void (*activate_both_back)(const Matrix *, const Matrix *, const Matrix *);
  void (*sum_rows)(const Matrix *, float *), (*uniform)(uint32_t, uint32_t, int64_t, float *);
  void (*advance)(const Steps *, int64_t), (*advance_back)(const Steps *, int64_t);
  void (*act)(const Steps *, int64_t), (*act_back)(const Steps *, int64_t);
  void (*costs)(const Steps *, const Costs *);
  void (*misses)(const Steps *, const Misses *);
} Kernels;

#define KERNELS(name)                                                                     \
  {                                                                                       \
    LANES_##name, activate_##name, activate_back_##name, activate_both_##name,            \
        activate_both_back_##name, sum_rows_##name, uniform_##name, advance_##name,       \
        advance_back_##name, act_##name, act_back_##name, costs_##name,   \
        misses_##name                                                                     \
  }

static const Kernels choices[] = {
    KERNELS(plain),
#ifdef CHOICE
    KERNELS(avx2), KERNELS(avx512),
#endif
};
static Kernels kernels = KERNELS(plain);

EXPORT int64_t NATIVE(lanes)(void) { return kernels.lanes; }

/* `compiled.py` leaves the work to torch where the robot or the model has other numbers. */
EXPORT int64_t NATIVE(learning_number)(int64_t which) {
  static const int64_t numbers[] = {J,      TRACKED_LINKS, LOCAL_LINKS, ALL_LINKS,
                                    INPUTS, OUTPUTS,       STATE,       REFERENCE,
                                    IN_OFF, IN_HEIGHT - IN_OFF};
  return numbers[which];
}
EXPORT int64_t NATIVE(steps_size)(void) { return (int64_t)sizeof(Steps); }
EXPORT int64_t NATIVE(costs_size)(void) { return (int64_t)sizeof(Costs); }
EXPORT int64_t NATIVE(misses_size)(void) { return (int64_t)sizeof(Misses); }

/* Use the kernels for the newest instructions that the processor has, up to `most`: 0 for those
   that every one has, 1 for AVX2, 2 for AVX-512. Returns which. To be called before any other. */
EXPORT int64_t NATIVE(choose)(int64_t most) {
  int64_t chosen = 0;
#ifdef CHOICE
  __builtin_cpu_init();
  if (most >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    chosen = 1;
  if (most >= 2 && chosen && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    chosen = 2;
#endif
  kernels = choices[chosen];
  return chosen;
}

EXPORT void NATIVE(activate)(const Matrix *z, const float *bias, const Matrix *out) {
  kernels.activate(z, bias, out);
}
EXPORT void NATIVE(activate_back)(const Matrix *grad, const Matrix *value, const Matrix *out) {
  kernels.activate_back(grad, value, out);
}
/* The same of both parts of symmetric layers, each two matrices in a row. */
EXPORT void NATIVE(activate_both)(const Matrix *z, const float *bias, const Matrix *out) {
  kernels.activate_both(z, bias, out);
}
EXPORT void NATIVE(activate_both_back)(const Matrix *grad, const Matrix *value, const Matrix *out) {
  kernels.activate_both_back(grad, value, out);
}
EXPORT void NATIVE(sum_rows)(const Matrix *m, float *out) { kernels.sum_rows(m, out); }
EXPORT void NATIVE(uniform)(int64_t key, int64_t count, float *out) {
  kernels.uniform((uint32_t)key, (uint32_t)(key >> 32), count, out);
}
EXPORT void NATIVE(advance)(const Steps *t, int64_t step) { kernels.advance(t, step); }
EXPORT void NATIVE(advance_back)(const Steps *t, int64_t step) { kernels.advance_back(t, step); }
EXPORT void NATIVE(act)(const Steps *t, int64_t step) { kernels.act(t, step); }
EXPORT void NATIVE(act_back)(const Steps *t, int64_t step) { kernels.act_back(t, step); }
EXPORT void NATIVE(costs)(const Steps *t, const Costs *c) { kernels.costs(t, c); }
EXPORT void NATIVE(misses)(const Steps *t, const Misses *e) { kernels.misses(t, e); }
