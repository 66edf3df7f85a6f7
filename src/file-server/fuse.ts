/** Numbers of the FUSE protocol 7.41 (linux/fuse.h) that the file server uses. */

export const opcode = {
  lookUp: 1,
  forget: 2,
  getAttributes: 3,
  setAttributes: 4,
  readLink: 5,
  symlink: 6,
  makeNode: 8,
  makeDirectory: 9,
  removeFile: 10,
  removeDirectory: 11,
  rename: 12,
  link: 13,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  setXattr: 21,
  getXattr: 22,
  listXattr: 23,
  removeXattr: 24,
  flush: 25,
  init: 26,
  openDirectory: 27,
  readDirectory: 28,
  releaseDirectory: 29,
  fsyncDirectory: 30,
  getLock: 31,
  setLock: 32,
  setLockWaiting: 33,
  create: 35,
  interrupt: 36,
  ioctl: 39,
  batchForget: 42,
  fallocate: 43,
  rename2: 45,
  seek: 46,
  copyFileRange: 47,
  createUnnamed: 51,
} as const;

export const protocol = { major: 7, minor: 41 } as const;

/** Node of the tree's root. */
export const rootNode = 1;

/** Sizes of structures, in bytes. */
export const size = {
  requestHeader: 40,
  replyHeader: 16,
  writeRequest: 40,
  entry: 128,
  attributes: 88,
  attributesReply: 104,
  open: 16,
  init: 64,
  statfs: 80,
  lock: 24,
} as const;

/** Flags of `init`; `initFlags2` has the bits from 32 on. */
export const initFlags = {
  asyncRead: 1 << 0,
  posixLocks: 1 << 1,
  atomicTruncate: 1 << 3,
  bigWrites: 1 << 5,
  flockLocks: 1 << 10,
  parallelDirectoryOperations: 1 << 18,
  maxPages: 1 << 22,
  handleKillPrivileges2: 1 << 28,
  extended: 1 << 30,
} as const;
export const initFlags2 = { directIoAllowsMapping: 1 << (36 - 32), allowsMappedUsers: 1 << (40 - 32) } as const;

/** User and group of a request that has neither. */
export const nobodyNamed = 0xffff_ffff;

export const openReplyFlags = {
  /** The server does all reads and writes; the guest caches none. */
  directIo: 1,
  /** The guest reports only the close of the last descriptor of the open file. */
  noFlush: 1 << 5,
} as const;

/** Members that a request to set attributes uses. */
export const validAttribute = {
  mode: 1 << 0,
  uid: 1 << 1,
  gid: 1 << 2,
  size: 1 << 3,
  atime: 1 << 4,
  mtime: 1 << 5,
  handle: 1 << 6,
  atimeNow: 1 << 7,
  mtimeNow: 1 << 8,
  killSetIds: 1 << 11,
} as const;

export const openRequestFlags = { killSetIds: 1 } as const;
export const writeFlags = { fromCache: 1, killSetIds: 4 } as const;
export const fsyncFlags = { dataOnly: 1 } as const;
export const lockFlags = { flock: 1 } as const;
/** Types of a lock: F_RDLCK, F_WRLCK, F_UNLCK. */
export const lockType = { shared: 0, exclusive: 1, none: 2 } as const;

/** Bits of open(2) with the same meaning for host and guest. O_DIRECT is not among them: it concerns alignment. */
export const openFlags = {
  accessMode: 3,
  writeOnly: 1,
  readWrite: 2,
  /** Internal bit of the kernel: a program is opened to be run. */
  toBeRun: 0o40,
  exclusive: 0o200,
  truncate: 0o1000,
  append: 0o2000,
  dataSync: 0o10000,
  sync: 0o4010000,
  directory: 0o200000,
} as const;

/** File types in a mode. */
export const fileType = { mask: 0o170000, directory: 0o040000, regular: 0o100000 } as const;

export const errno = {
  interrupted: 4,
  io: 5,
  badHandle: 9,
  again: 11,
  access: 13,
  exists: 17,
  invalid: 22,
  tableFull: 23,
  tooManyOpen: 24,
  noTty: 25,
  tooBig: 27,
  readOnlyFileSystem: 30,
  range: 34,
  noLocks: 37,
  noSuchCall: 38,
  stale: 116,
} as const;
