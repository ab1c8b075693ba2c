/** Rotations, as bm_envs/rotations.py has them: quaternions w x y z, body to world. */

export type Vector = ArrayLike<number>;

export function multiply(a: Vector, b: Vector): number[] {
  return [
    a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
    a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
    a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
    a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
  ];
}

export function conjugate(q: Vector): number[] {
  return [q[0], -q[1], -q[2], -q[3]];
}

export function cross(a: Vector, b: Vector): number[] {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

export function minus(a: Vector, b: Vector): number[] {
  return [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
}

export function plus(a: Vector, b: Vector): number[] {
  return [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
}

/** `R(q) v`. */
export function rotate(q: Vector, v: Vector): number[] {
  const axis = [q[1], q[2], q[3]];
  const t = cross(axis, v).map((value) => 2 * value);
  const further = cross(axis, t);
  return [0, 1, 2].map((i) => v[i] + q[0] * t[i] + further[i]);
}

/** `R(q)^T v`. */
export function rotateInverse(q: Vector, v: Vector): number[] {
  return rotate(conjugate(q), v);
}

/** Heading of the x axis about the vertical, rad. */
export function yaw(q: Vector): number {
  return Math.atan2(2 * (q[0] * q[3] + q[1] * q[2]), 1 - 2 * (q[2] * q[2] + q[3] * q[3]));
}

export function quatOfYaw(angle: number): number[] {
  return [Math.cos(0.5 * angle), 0, 0, Math.sin(0.5 * angle)];
}

/** `v` turned about the vertical by `angle`, rad. */
export function turn(v: Vector, angle: number): number[] {
  const c = Math.cos(angle);
  const s = Math.sin(angle);
  return [c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]];
}

/** The shortest rotation vector, rad. */
export function rotationVector(q: Vector): number[] {
  const sign = q[0] < 0 ? -1 : 1;
  const axis = [sign * q[1], sign * q[2], sign * q[3]];
  const norm = Math.hypot(...axis);
  const size = norm < 1e-7 ? 2 : (2 * Math.atan2(norm, sign * q[0])) / norm;
  return axis.map((value) => size * value);
}

/** Angle between the z axis of `q` and the vertical, rad. */
export function tilt(q: Vector): number {
  return Math.acos(Math.min(1, Math.max(-1, 1 - 2 * (q[1] * q[1] + q[2] * q[2]))));
}
