/* The task's arithmetic of one control step, for robots on the processor.

   What `task.py`, `terms.py`, `rewards.py` and `terminations.py` say in NumPy, a robot at a time:
   those files are the definition, this one is compared with them by tests. In NumPy every operation
   is a pass over all robots, or, with one robot, mostly the cost of a call.

   `kernel.py` calls this file's functions; it is compiled into one library with
   `backends/native.c`. All fields are eight bytes wide, so that the structure here and the one there
   are laid out alike on every machine. Strides count floats from one robot to the next. Inner axes
   are contiguous. Quaternions are w x y z; axes of a link are rows. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define K 14  /* tracked bodies */
/* Numbers of a row of the reference, and of what is shown of one, for J joints. */
#define REFERENCE(J) (2 * (J) + 13 * K + 9)
#define SHOWN(J) (2 * (J) + 12)
#define TRACKED 6  /* rewards that are exp(-square / width^2) */
#define ACTION_BOUND 100.0f  /* of `rewards.py`, as is the next */
#define LIMIT_BOUND 100.0f

typedef struct {
  const float *data;
  int64_t stride;
} View;

typedef struct {
  int64_t num_envs, num_joints;
  View joint_pos, joint_vel, root_lin_vel, root_ang_vel_b;
  View body_pos, body_quat, body_axes, body_lin_vel, body_ang_vel, contact_force;
  /* The motion: a table of frames, and each robot's row of it, and what observations show of one. */
  const float *reference_table;
  float *reference, *shown;
  const int64_t *clip_id, *frame, *first_row, *last_frame;
  int64_t *row;
  const float *action, *last_action, *default_joint_pos, *soft_low, *soft_high;
  float *stale_pos, *stale_axes;
  /* Settings. */
  int64_t lead, anchor, num_penalized, num_values;
  int64_t stale_targets, rotate_velocity_targets, failure_body, train_rules;
  const int64_t *end_effectors;
  int64_t num_end_effectors;
  /* `failure_cosine`: of half the largest rotation (`half_angle_cosine`); 0: the tilt counts. */
  double failure_height, failure_tilt, failure_cosine, failure_distance, contact_threshold;
  const float *widths, *weights;
  /* What a step gives, a row a robot: signed rewards; of `causes` a row a rule. */
  float *values, *reward;
  uint8_t *causes, *terminated;
  const uint8_t *diverged;
} Track;

static float dot3(const float *a, const float *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

static float square(float x) { return x * x; }

static float bounded(float action) {
  return action > ACTION_BOUND ? ACTION_BOUND : action < -ACTION_BOUND ? -ACTION_BOUND : action;
}

static const float *at(View view, int64_t env) { return view.data + env * view.stride; }

EXPORT int64_t native_track_size(void) { return (int64_t)sizeof(Track); }

/* `kernel.py` leaves the work to NumPy where robots track other numbers of bodies: rows are as long as this says. */
EXPORT int64_t native_num_bodies(void) { return K; }

/* The robot's frame, or one some steps on; behind the clip's end the last one. */
static int64_t frame_of(const Track *t, int64_t env, int64_t ahead) {
  int64_t frame = t->frame[env] + ahead, last = t->last_frame[env];
  return frame < last ? frame : last;
}

/* Rows of the reference at each robot's present frame, and what `Shown.of` takes of those ahead, as `TrackTask`
   looks them up. */
EXPORT void native_gather(const Track *t) {
  int64_t J = t->num_joints, size = REFERENCE(J);
  for (int64_t env = 0; env < t->num_envs; env++) {
    const float *first = t->reference_table + t->first_row[env] * size;
    int64_t frame = frame_of(t, env, 0);
    t->row[env] = t->first_row[env] + frame;
    memcpy(t->reference + env * size, first + frame * size, size * sizeof(float));
    const float *ahead = first + frame_of(t, env, t->lead) * size;
    float *shown = t->shown + env * SHOWN(J);
    memcpy(shown, ahead, 2 * J * sizeof(float));
    memcpy(shown + 2 * J, ahead + 2 * J + 3 * t->anchor, 3 * sizeof(float));
    memcpy(shown + 2 * J + 3, ahead + 2 * J + 13 * K, 9 * sizeof(float));
  }
}

static float quat_product(const float *q, const float *ref) {
  return fabsf(q[0] * ref[0] + q[1] * ref[1] + q[2] * ref[2] + q[3] * ref[3]);
}

static float square_angle(const float *q, const float *ref) {
  float product = quat_product(q, ref);
  /* NaN stays NaN, as in NumPy's clip. */
  float half = acosf(product > 1.0f ? 1.0f : product);
  return 4.0f * half * half;
}

static float square_distance(const float *a, const float *b) {
  return square(b[0] - a[0]) + square(b[1] - a[1]) + square(b[2] - a[2]);
}

static void turn(float c, float s, const float *vector, float *turned) {
  turned[0] = c * vector[0] - s * vector[1];
  turned[1] = s * vector[0] + c * vector[1];
  turned[2] = vector[2];
}

/* Signed rewards and failures of every robot against its reference row: as `TrackTask` compares them. A robot
   is terminated by any failure or by divergence. Returns how many have diverged. */
EXPORT int64_t native_terms(const Track *t) {
  int64_t n = t->num_envs, J = t->num_joints, num_diverged = 0;
  float threshold = (float)(t->contact_threshold * t->contact_threshold);
  float distance = (float)(t->failure_distance * t->failure_distance);
  float height = (float)t->failure_height, tilt = (float)(t->failure_tilt / 2);
  float cosine = (float)t->failure_cosine;
  for (int64_t env = 0; env < n; env++) {
    const float *ref = t->reference + env * REFERENCE(J);
    const float *ref_pos = ref + 2 * J, *ref_quat = ref_pos + 3 * K;
    const float *ref_lin = ref_quat + 4 * K, *ref_ang = ref_lin + 3 * K, *ref_axes = ref_ang + 3 * K;
    const float *pos = at(t->body_pos, env), *quat = at(t->body_quat, env);
    const float *lin = at(t->body_lin_vel, env), *ang = at(t->body_ang_vel, env);
    const float *anchor_pos = pos + 3 * t->anchor, *anchor_axes = at(t->body_axes, env) + 9 * t->anchor;
    const float *ref_anchor = ref_pos + 3 * t->anchor;
    const float *target_pos = t->stale_targets ? t->stale_pos + 3 * env : anchor_pos;
    const float *target_axes = t->stale_targets ? t->stale_axes + 9 * env : anchor_axes;
    float *value = t->values + env * t->num_values;

    /* `heading_difference`: of the first column of R_a R_ref^T. */
    float x = 0, y = 0;
    for (int i = 0; i < 3; i++) {
      x += ref_axes[3 * i] * target_axes[3 * i];
      y += ref_axes[3 * i] * target_axes[3 * i + 1];
    }
    float yaw = atan2f(y, x), half = 0.5f * yaw;
    float c = cosf(yaw), s = sinf(yaw), hc = cosf(half), hs = sinf(half);

    value[0] = square_distance(anchor_pos, ref_anchor);
    value[1] = square_angle(quat + 4 * t->anchor, ref_quat + 4 * t->anchor);
    float position = 0, orientation = 0, linear = 0, angular = 0;
    for (int k = 0; k < K; k++) {
      const float *p = ref_pos + 3 * k, *q = ref_quat + 4 * k;
      /* `anchored_reference`: the reference at the robot's place and heading. */
      float arm[3] = {p[0] - ref_anchor[0], p[1] - ref_anchor[1], p[2] - ref_anchor[2]}, aim[3];
      turn(c, s, arm, aim);
      aim[0] += target_pos[0], aim[1] += target_pos[1], aim[2] += ref_anchor[2];
      float facing[4] = {hc * q[0] - hs * q[3], hc * q[1] - hs * q[2], hc * q[2] + hs * q[1],
                         hc * q[3] + hs * q[0]};
      position += square_distance(pos + 3 * k, aim);
      orientation += square_angle(quat + 4 * k, facing);
      const float *aim_lin = ref_lin + 3 * k, *aim_ang = ref_ang + 3 * k;
      float turned_lin[3], turned_ang[3];
      if (t->rotate_velocity_targets) {
        turn(c, s, aim_lin, turned_lin), turn(c, s, aim_ang, turned_ang);
        aim_lin = turned_lin, aim_ang = turned_ang;
      }
      linear += square_distance(lin + 3 * k, aim_lin);
      angular += square_distance(ang + 3 * k, aim_ang);
    }
    value[2] = position / K, value[3] = orientation / K;
    value[4] = linear / K, value[5] = angular / K;
    for (int i = 0; i < TRACKED; i++) value[i] = expf(value[i] / (-t->widths[i] * t->widths[i]));

    const float *joint_pos = at(t->joint_pos, env);
    const float *action = t->action + env * J, *last = t->last_action + env * J;
    float rate = 0, beyond = 0;
    for (int64_t j = 0; j < J; j++) {
      rate += square(bounded(action[j]) - bounded(last[j]));
      float q = joint_pos[j], low = t->soft_low[j], high = t->soft_high[j];
      float off = q < low ? low - q : q > high ? q - high : q - q;  /* NaN stays NaN */
      beyond += off > LIMIT_BOUND ? LIMIT_BOUND : off;
    }
    value[6] = rate, value[7] = beyond;
    if (t->num_values > 8) {
      const float *force = at(t->contact_force, env);
      int touching = 0;
      for (int64_t b = 0; b < t->num_penalized; b++)
        touching += dot3(force + 3 * b, force + 3 * b) > threshold;
      value[8] = (float)touching;
    }
    float total = 0;
    for (int64_t i = 0; i < t->num_values; i++) total += value[i] *= t->weights[i];
    t->reward[env] = total;

    /* Failures; a comparison with NaN is false, and divergence is seen elsewhere. */
    uint8_t failed = t->terminated[env] = t->diverged[env];
    num_diverged += failed;
    if (t->failure_body < 0) continue;
    uint8_t *cause = t->causes + env;
    int64_t b = t->failure_body;
    const float *q = quat + 4 * b, *rq = ref_quat + 4 * b;
    cause[0] = fabsf(ref_pos[3 * b + 2] - pos[3 * b + 2]) > height;
    cause[n] = cosine > 0
                   ? quat_product(q, rq) < cosine
                   : fabsf(rq[1] * rq[1] + rq[2] * rq[2] - (q[1] * q[1] + q[2] * q[2])) > tilt;
    failed |= cause[0] | cause[n];
    t->terminated[env] = failed;
    if (!t->train_rules) continue;
    uint8_t off = 0;
    for (int64_t i = 0; i < t->num_end_effectors; i++) {
      int64_t z = 3 * t->end_effectors[i] + 2;
      off |= fabsf(ref_pos[z] - pos[z]) > height;
    }
    cause[2 * n] = off;
    float x_off = ref_anchor[0] - anchor_pos[0], y_off = ref_anchor[1] - anchor_pos[1];
    cause[3 * n] = square(x_off) + square(y_off) > distance;
    t->terminated[env] = failed | off | cause[3 * n];
  }
  return num_diverged;
}

/* `StartSampler.record`: the bins of the robots' frames (`StartSampler.bin_of`) were visited, and where a robot
   was terminated its bin has failed. Of each clip: frames, bins, and the first bin. */
EXPORT void native_record(const Track *t, const int64_t *clip_frames, const int64_t *clip_bins,
                          const int64_t *bin_start, double *visits, double *failures,
                          int64_t num_bins, double alpha) {
  for (int64_t b = 0; b < num_bins; b++) visits[b] *= 1 - alpha, failures[b] *= 1 - alpha;
  for (int64_t env = 0; env < t->num_envs; env++) {
    int64_t clip = t->clip_id[env], bins = clip_bins[clip];
    int64_t within = frame_of(t, env, 0) * bins / clip_frames[clip];
    int64_t bin = bin_start[clip] + (within < bins ? within : bins - 1);
    visits[bin] += alpha;
    if (t->terminated[env]) failures[bin] += alpha;
  }
}

static float *local(const float *axes, const float *vector, float *out) {
  for (int r = 0; r < 3; r++) out[r] = dot3(axes + 3 * r, vector);
  return out + 3;
}

/* First two columns of R_a^T R, row by row, of a link's axes. */
static float *local_columns(const float *anchor_axes, const float *axes, float *out) {
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 2; c++) *out++ = dot3(anchor_axes + 3 * r, axes + 3 * c);
  return out;
}

/* The critic's observation `[count, size]` of the robots listed (all where `envs` is null), its
   terms in the order of `observation_terms.TERMS`; and that of the policy, `num_parts` stretches of
   it: (start, length) each. */
EXPORT void native_observe(const Track *t, const int64_t *envs, int64_t count, float *critic,
                           int64_t critic_size, float *policy, const int64_t *parts,
                           int64_t num_parts) {
  int64_t J = t->num_joints;
  for (int64_t i = 0; i < count; i++) {
    int64_t env = envs ? envs[i] : i;
    const float *shown = t->shown + env * SHOWN(J), *pos = at(t->body_pos, env);
    const float *all_axes = at(t->body_axes, env), *axes = all_axes + 9 * t->anchor;
    const float *anchor_pos = pos + 3 * t->anchor, *joint_pos = at(t->joint_pos, env);
    float *begin = critic + i * critic_size, *out = begin;
    memcpy(out, shown, 2 * J * sizeof(float)), out += 2 * J;
    for (int k = -1; k < K; k++) {
      const float *p = k < 0 ? shown + 2 * J : pos + 3 * k;
      float arm[3] = {p[0] - anchor_pos[0], p[1] - anchor_pos[1], p[2] - anchor_pos[2]};
      out = local(axes, arm, out);
      if (k < 0) out = local_columns(axes, shown + 2 * J + 3, out);
    }
    for (int k = 0; k < K; k++) out = local_columns(axes, all_axes + 9 * k, out);
    out = local(all_axes, at(t->root_lin_vel, env), out);
    memcpy(out, at(t->root_ang_vel_b, env), 3 * sizeof(float)), out += 3;
    for (int64_t j = 0; j < J; j++) *out++ = joint_pos[j] - t->default_joint_pos[env * J + j];
    memcpy(out, at(t->joint_vel, env), J * sizeof(float)), out += J;
    memcpy(out, t->action + env * J, J * sizeof(float));
    for (int64_t p = 0; p < num_parts; p++) {
      memcpy(policy, begin + parts[2 * p], parts[2 * p + 1] * sizeof(float));
      policy += parts[2 * p + 1];
    }
    if (t->stale_targets) {
      memcpy(t->stale_pos + 3 * env, anchor_pos, 3 * sizeof(float));
      memcpy(t->stale_axes + 9 * env, axes, 9 * sizeof(float));
    }
  }
}
