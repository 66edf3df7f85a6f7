import * as v from 'valibot';

/** Assets that set-up made, as absolute paths and versions; read from `<root>/assets/current.json`. */
export const assetsSchema = v.object({
  /** Changes whenever anything below changes. */
  key: v.string(),
  /** Directory of extracted Debian packages: QEMU, EROFS tools, the jail's whole `/usr`. */
  sysroot: v.string(),
  /** Uncompressed `vmlinux` with a PVH note. */
  kernel: v.string(),
  kernelVersion: v.string(),
  /** Initial RAM disk: agent as `/init`, crun, modules. */
  initramfs: v.string(),
  /** EROFS file of the kernel's modules that pods may ask for. */
  modules: v.string(),
  /** Program that serves a shared volume to a guest. */
  fileServer: v.string(),
  /** Plugin of QEMU that discards translations; set-ups of earlier versions made none. */
  plugin: v.exactOptional(v.string()),
  qemuVersion: v.string(),
  crunVersion: v.string(),
  /** Hash of the sources that the agent and the file server are made from. */
  agent: v.string(),
});

export type Assets = Readonly<v.InferOutput<typeof assetsSchema>>;

/** Versions of a machine's parts, for comparison with the newest. */
export const partVersionsSchema = v.object({
  /** Key of the assets: machines with the same key are made of the same parts. */
  key: v.string(),
  qemu: v.string(),
  kernel: v.string(),
  crun: v.string(),
  agent: v.string(),
});
export type PartVersions = Readonly<v.InferOutput<typeof partVersionsSchema>>;

export function partVersionsOf({ key, qemuVersion, kernelVersion, crunVersion, agent }: Assets): PartVersions {
  return { key, qemu: qemuVersion, kernel: kernelVersion, crun: crunVersion, agent };
}
