/**
 * Numbers of the Linux ABI for x86-64 that the engine's calls take. `engine.c` compares them with its headers at
 * compile time.
 */

/** Flags of `Descriptors.open`, which always adds O_CLOEXEC. */
export const open = {
  readOnly: 0,
  writeOnly: 1,
  readWrite: 2,
  create: 0o100,
  exclusive: 0o200,
  noControllingTty: 0o400,
  truncate: 0o1000,
  append: 0o2000,
  nonBlock: 0o4000,
  directory: 0o200000,
  noFollow: 0o400000,
  /** Names the file without opening it (O_PATH). */
  path: 0o10000000,
} as const;

/** mount(2). */
export const mountFlags = {
  readOnly: 1,
  noSuid: 2,
  noDevices: 4,
  noExec: 8,
  remount: 32,
  noSymlinks: 256,
  noAccessTime: 1024,
  bind: 4096,
  move: 8192,
  recursive: 16384,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
  relativeAccessTime: 1 << 21,
} as const;

/** umount2(2). */
export const unmountFlags = { force: 1, detach: 2, noFollow: 8 } as const;

export const signals = {
  hangup: 1,
  interrupt: 2,
  quit: 3,
  kill: 9,
  terminate: 15,
  child: 17,
} as const;

/** capabilities(7). */
export const capabilities = { systemResource: 24 } as const;
