/** What is seen: the robot in plain shapes, the ground, what is asked and who draws at it. */
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

import type { Frame } from "./messages";
import type { Shape } from "./robot";

/** A point of a link that a person holds. */
export interface Grip {
  body: number;
  /** In the link's frame, m. */
  point: THREE.Vector3;
}

// The reference, seen through but not into: its depth is drawn first, then what is in front.
const GHOST_DEPTH = new THREE.MeshBasicMaterial({ colorWrite: false });
const GHOST = new THREE.MeshLambertMaterial({
  color: 0x2fae62,
  transparent: true,
  opacity: 0.4,
  depthFunc: THREE.EqualDepth,
  depthWrite: false,
});
const SKY = 0xdde6ee;
const TILE = 2; // m, after which the ground repeats
const GROUND = 80; // m

export class Scene {
  private readonly renderer: THREE.WebGLRenderer;
  private readonly scene = new THREE.Scene();
  private readonly camera = new THREE.PerspectiveCamera(38, 1, 0.05, 80);
  private readonly controls: OrbitControls;
  private readonly lamp = new THREE.DirectionalLight(0xfff4e6, 2.1);
  private readonly ground: THREE.Mesh;
  private readonly links: THREE.Group[] = [];
  private readonly ghosts: THREE.Group[] = [];
  private readonly arrow: THREE.Group;
  private readonly string: THREE.Mesh;
  private readonly ray = new THREE.Raycaster();
  private held: { grip: Grip; plane: THREE.Plane; target: THREE.Vector3 } | null = null;
  private readonly followed = new THREE.Vector3(0, 0, 0.75);
  showsGhost = true;

  /** `changed` is called when it is to be drawn again though nothing moved but the view. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    changed: () => void,
  ) {
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.renderer.shadowMap.enabled = true;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.scene.background = new THREE.Color(SKY);
    this.scene.fog = new THREE.Fog(SKY, 9, 32);
    this.camera.up.set(0, 0, 1);
    this.camera.position.set(2.5, -2.3, 1.55);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enablePan = false;
    this.controls.minDistance = 1.2;
    this.controls.maxDistance = 12;
    this.controls.maxPolarAngle = 0.495 * Math.PI;
    this.controls.target.copy(this.followed);
    this.controls.addEventListener("change", changed);
    window.addEventListener("resize", changed);
    this.scene.add(new THREE.HemisphereLight(0xf4f8ff, 0x9a948a, 1.6));
    this.lamp.castShadow = true;
    this.lamp.shadow.mapSize.set(1024, 1024);
    this.lamp.shadow.bias = -0.0005;
    this.lamp.shadow.normalBias = 0.01;
    Object.assign(this.lamp.shadow.camera, { left: -1.4, right: 1.4, top: 1.6, bottom: -1.4 });
    this.scene.add(this.lamp, this.lamp.target);
    this.ground = makeGround();
    this.arrow = makeArrow();
    this.string = makeString();
    this.scene.add(this.ground, this.arrow, this.string);
  }

  /** Make the robot of its shapes. */
  setRobot(shapes: Shape[], links: number): void {
    for (let i = 0; i < links; i++) {
      this.links.push(new THREE.Group());
      this.ghosts.push(new THREE.Group());
    }
    for (const shape of shapes) {
      const [r, g, b] = shape.rgba;
      const color = new THREE.Color().setRGB(r, g, b, THREE.SRGBColorSpace);
      const mesh = meshOf(shape, new THREE.MeshStandardMaterial({ color, roughness: 0.55 }));
      mesh.castShadow = true;
      mesh.receiveShadow = true;
      mesh.userData = { body: shape.body };
      this.links[shape.body].add(mesh);
      const [depth, front] = [meshOf(shape, GHOST_DEPTH), meshOf(shape, GHOST)];
      depth.renderOrder = 1; // after all that is not seen through
      front.renderOrder = 2;
      this.ghosts[shape.body].add(depth, front);
    }
    this.scene.add(...this.links, ...this.ghosts);
  }

  /** Draw a frame; `settled` without the camera's delay. */
  show(frame: Frame, settled: boolean): void {
    place(this.links, frame.poses);
    this.ghosts.forEach((ghost) => (ghost.visible = frame.ghost !== null && this.showsGhost));
    if (frame.ghost !== null) place(this.ghosts, frame.ghost);
    const [x, y] = frame.figures.place;
    this.follow(x, y, settled);
    this.ground.position.set(TILE * Math.round(x / TILE), TILE * Math.round(y / TILE), 0);
    this.showCommand(frame);
    this.showString();
    this.fit();
    this.controls.update();
    this.renderer.render(this.scene, this.camera);
  }

  /** Take the size that the canvas has on the page. */
  private fit(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const size = this.renderer.getSize(new THREE.Vector2());
    if (size.x !== width || size.y !== height) {
      this.renderer.setSize(width, height, false);
      this.camera.aspect = width / height;
      // What is to be seen is upright: a narrow view looks from further away.
      this.camera.fov = width < height ? 52 : 38;
      this.camera.updateProjectionMatrix();
    }
  }

  /** Take hold of the robot where the pointer is; null: it is not there. */
  grip(x: number, y: number): Grip | null {
    this.aim(x, y);
    const hit = this.ray.intersectObjects(this.links, true)[0];
    if (hit === undefined) return null;
    const body = hit.object.userData.body as number;
    const point = this.links[body].worldToLocal(hit.point.clone());
    const normal = this.camera.getWorldDirection(new THREE.Vector3());
    const plane = new THREE.Plane().setFromNormalAndCoplanarPoint(normal, hit.point);
    this.held = { grip: { body, point }, plane, target: hit.point.clone() };
    this.controls.enabled = false;
    return this.held.grip;
  }

  /** Where the pointer draws what it holds, world, m; null: it holds nothing. */
  drag(x: number, y: number): THREE.Vector3 | null {
    if (this.held === null) return null;
    this.aim(x, y);
    this.ray.ray.intersectPlane(this.held.plane, this.held.target);
    this.held.target.z = Math.max(this.held.target.z, 0.02);
    return this.held.target;
  }

  letGo(): void {
    this.held = null;
    this.controls.enabled = true;
    this.string.visible = false;
  }

  /** Where a link is on the canvas, in pixels from its upper left corner. */
  onScreen(body: number): [number, number] {
    const at = this.links[body].getWorldPosition(new THREE.Vector3()).project(this.camera);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return [((at.x + 1) / 2) * width, ((1 - at.y) / 2) * height];
  }

  private aim(x: number, y: number): void {
    const box = this.canvas.getBoundingClientRect();
    const pointer = new THREE.Vector2(
      ((x - box.left) / box.width) * 2 - 1,
      1 - ((y - box.top) / box.height) * 2,
    );
    this.ray.setFromCamera(pointer, this.camera);
  }

  /** Camera and lamp go with the robot, the camera a little behind; after a jump at once. */
  private follow(x: number, y: number, settled: boolean): void {
    const way = new THREE.Vector3(x - this.followed.x, y - this.followed.y, 0);
    if (way.length() < 1 && !settled) way.multiplyScalar(0.12);
    this.followed.add(way);
    this.controls.target.copy(this.followed);
    this.camera.position.add(way);
    this.lamp.position.set(x + 1.2, y - 1.6, 3.4);
    this.lamp.target.position.set(x, y, 0.6);
  }

  /** An arrow over the ground to where the command leads in a second. */
  private showCommand({ figures }: Frame): void {
    const { command, place: at, heading } = figures;
    this.arrow.visible = command !== null && Math.hypot(...command) > 0.02;
    if (command === null) return;
    const [forward, left, rate] = command;
    const direction = forward < -0.02 ? Math.PI : 0;
    this.arrow.position.set(at[0], at[1], 0.012);
    this.arrow.rotation.z = heading + direction + (direction ? -0.5 : 0.5) * rate;
    const length = Math.max(Math.hypot(forward, left), 0.35 * Math.abs(rate));
    this.arrow.scale.set(0.5 + length, 1, 1);
  }

  private showString(): void {
    this.string.visible = this.held !== null;
    if (this.held === null) return;
    const from = this.links[this.held.grip.body].localToWorld(this.held.grip.point.clone());
    const way = this.held.target.clone().sub(from);
    this.string.position.copy(from).addScaledVector(way, 0.5);
    this.string.scale.set(1, way.length(), 1);
    this.string.quaternion.setFromUnitVectors(new THREE.Vector3(0, 1, 0), way.normalize());
  }
}

function place(links: THREE.Group[], poses: Float32Array): void {
  links.forEach((link, i) => {
    const [x, y, z, qw, qx, qy, qz] = poses.subarray(7 * i, 7 * i + 7);
    link.position.set(x, y, z);
    link.quaternion.set(qx, qy, qz, qw);
    link.updateMatrixWorld();
  });
}

function meshOf(shape: Shape, material: THREE.Material): THREE.Mesh {
  const mesh = new THREE.Mesh(geometryOf(shape), material);
  mesh.position.fromArray(shape.pos);
  const [w, x, y, z] = shape.quat;
  mesh.quaternion.set(x, y, z, w);
  return mesh;
}

/** MuJoCo's shapes stand along z, three's along y. */
function geometryOf({ kind, size: [a, b, c] }: Shape): THREE.BufferGeometry {
  switch (kind) {
    case "sphere":
      return new THREE.SphereGeometry(a, 24, 16);
    case "ellipsoid":
      return new THREE.SphereGeometry(1, 28, 20).scale(a, b, c);
    case "capsule":
      return new THREE.CapsuleGeometry(a, 2 * b, 8, 20).rotateX(Math.PI / 2);
    case "cylinder":
      return new THREE.CylinderGeometry(a, a, 2 * b, 28).rotateX(Math.PI / 2);
    case "box":
      return new THREE.BoxGeometry(2 * a, 2 * b, 2 * c);
  }
}

function makeGround(): THREE.Mesh {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 256;
  const pen = canvas.getContext("2d");
  if (pen === null) throw new Error("this browser draws no pictures.");
  pen.fillStyle = "#c3cad0";
  pen.fillRect(0, 0, 256, 256);
  pen.fillStyle = "#b7bfc6";
  pen.fillRect(0, 0, 128, 128);
  pen.fillRect(128, 128, 128, 128);
  const texture = new THREE.CanvasTexture(canvas);
  texture.colorSpace = THREE.SRGBColorSpace;
  texture.wrapS = texture.wrapT = THREE.RepeatWrapping;
  texture.repeat.set(GROUND / TILE, GROUND / TILE);
  texture.anisotropy = 8;
  const ground = new THREE.Mesh(
    new THREE.PlaneGeometry(GROUND, GROUND),
    new THREE.MeshLambertMaterial({ map: texture }),
  );
  ground.receiveShadow = true;
  return ground;
}

/** Flat, along x, one long. */
function makeArrow(): THREE.Group {
  const outline = new THREE.Shape(
    [[0.3, 0.045], [0.8, 0.045], [0.8, 0.12], [1, 0], [0.8, -0.12], [0.8, -0.045], [0.3, -0.045]].map(
      ([x, y]) => new THREE.Vector2(x, y),
    ),
  );
  const material = new THREE.MeshBasicMaterial({ color: 0x1f74d6, transparent: true, opacity: 0.8 });
  const arrow = new THREE.Group().add(new THREE.Mesh(new THREE.ShapeGeometry(outline), material));
  arrow.visible = false;
  return arrow;
}

/** Along y, one long. */
function makeString(): THREE.Mesh {
  const material = new THREE.MeshBasicMaterial({ color: 0xd6471f });
  const string = new THREE.Mesh(new THREE.CylinderGeometry(0.006, 0.006, 1, 8), material);
  string.visible = false;
  return string;
}
