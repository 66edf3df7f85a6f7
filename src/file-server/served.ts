/**
 * System calls of a file server (`served.c`), which serves a tree of the host to a guest as FUSE asks for it. Words: a
 * *node* is an O_PATH descriptor; *(message, at)* is a place in a message of FUSE, where what is named stands (a name and
 * what follows it ends with NUL). A name is one component of a path, whatever the guest says: `EINVAL` for all else.
 * Errors: these calls answer a negative errno number; 0 or more is success. What the user who asks may not do is tried
 * once more as a member of the group of what it is about (`Powers.actAs`).
 */
export interface Served {
  /** Node of a directory, by its path. */
  openRoot(path: string): number;
  /** Node of what a directory has by that name; a symlink is not followed. */
  openNode(directory: number, message: Uint8Array, at: number): number;
  /** Node of an open file. */
  nodeOf(fd: number): number;
  /** Writes `struct fuse_attr` and answers the file's identity, unique on the host while the file is open. */
  look(node: number, out: Uint8Array, outAt: number): string | number;
  lookIn(directory: number, message: Uint8Array, at: number, out: Uint8Array, outAt: number): string | number;
  /** Bytes written. */
  readLinkOf(node: number, out: Uint8Array, outAt: number): number;
  /** Writes `struct fuse_kstatfs`. */
  spaceOf(node: number, out: Uint8Array, outAt: number): number;
  /** Writes `struct fuse_dirent`s, from the offset that stands in the message; bytes written, 0 at the end. */
  listNode(fd: number, message: Uint8Array, at: number, out: Uint8Array, outAt: number, length: number): number;

  /** Opens a file that this call has made, or `EEXIST`. */
  createIn(directory: number, message: Uint8Array, at: number, flags: number, mode: number): number;
  /** O_TMPFILE. */
  createUnnamedIn(directory: number, flags: number, mode: number): number;
  /** mkdir or mknod, by the type in `mode`; `device` as the kernel encodes it in 32 bits. */
  makeNodeIn(directory: number, message: Uint8Array, at: number, mode: number, device: number): number;
  /** What the link says follows its name. */
  symlinkIn(directory: number, message: Uint8Array, at: number): number;
  linkIn(directory: number, message: Uint8Array, at: number, node: number): number;
  removeIn(directory: number, message: Uint8Array, at: number, isDirectory: boolean): number;
  /** The new name follows the old one; `flags` of renameat2(2). */
  renameIn(directory: number, message: Uint8Array, at: number, newDirectory: number, flags: number): number;

  changeModeOfNode(node: number, mode: number): number;
  /** -1: leave as it is. */
  changeOwnerOfNode(node: number, uid: number, gid: number): number;
  /** Takes away the set-user-ID and set-group-ID bits that a write by an ordinary process would. */
  clearSetIds(node: number): number;
  /** Seconds since the epoch and nanoseconds, or `timeNow` or `timeOmitted` for these. */
  setTimesOf(node: number, atime: number, atimeNs: number, mtime: number, mtimeNs: number): number;
  truncateNode(node: number, size: number): number;
  truncateFile(fd: number, size: number): number;
  /** Bytes of the value; with a `length` of 0, how many it has. */
  getAttribute(node: number, message: Uint8Array, at: number, out: Uint8Array, outAt: number, length: number): number;
  listAttributes(node: number, out: Uint8Array, outAt: number, length: number): number;
  /** The value follows the name. */
  setAttribute(node: number, message: Uint8Array, at: number, size: number, flags: number): number;
  removeAttribute(node: number, message: Uint8Array, at: number): number;

  /** Opens a node that is a regular file or directory; `EACCES`: it is none. */
  openFile(node: number, flags: number): number;
  /** Opens what the client has open, with the same access, whatever its mode says by now. */
  reopenFile(node: number, accessMode: number): number;
  readAt(fd: number, out: Uint8Array, outAt: number, length: number, offset: number): number;
  writeAt(fd: number, message: Uint8Array, at: number, length: number, offset: number): number;
  /** Whether it is on a disk or in memory of this host, as far as we know its file system. */
  isLocal(fd: number): boolean;
  /** What close(2) would say of a descriptor of the open file, which stays open. */
  closeOne(fd: number): number;
  /** fallocate(2). */
  allocate(fd: number, mode: number, offset: number, length: number): number;
  /** lseek(2), for SEEK_DATA and SEEK_HOLE. */
  seekFrom(fd: number, offset: number, whence: number): number;
  copyBetween(from: number, fromOffset: number, to: number, toOffset: number, length: number): number;

  /** Descriptor that becomes readable when a flush has ended. Throws. */
  openFlushes(): number;
  /** fsync or fdatasync, in a thread; `EAGAIN`: too many are under way. */
  startFlush(fd: number, isDataOnly: boolean, id: number): number;
  /** One that has ended, with its errno (positive; 0: it succeeded). Throws. */
  flushed(): { readonly id: number; readonly error: number };

  /** The `struct fuse_file_lock` in the message, for the open file description (F_OFD_SETLK); never waits. */
  lockRange(fd: number, message: Uint8Array, at: number): number;
  /** Writes over it the lock that is in its way, of an unknown process, or one of type F_UNLCK. */
  testLock(fd: number, message: Uint8Array, at: number): number;
  /** flock(2) by the type of a lock (0 shared, 1 exclusive, 2 none); never waits. */
  lockFile(fd: number, type: number): number;
}

/** Nanoseconds that stand for the present time, or for leaving it as it is (utimensat(2)). */
export const timeNow = 0x3fffffff;
export const timeOmitted = 0x3ffffffe;
