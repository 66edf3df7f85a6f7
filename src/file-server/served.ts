/**
 * System calls of the file server (the C beside this file), which serves a tree of the host to a guest over FUSE. Words: a *node*
 * is an O_PATH descriptor; *(message, at)* is a place in a FUSE message that holds the argument (names and texts end
 * with NUL). A name must be one component of a path, else `EINVAL`.
 * Errors: these calls return a negative errno, and 0 or more on success. A call that the user may not make is tried
 * again as a member of the file's group (`Powers.actAs`).
 */
export interface Served {
  /** Opens a directory by its path. */
  openRoot(path: string): number;
  /** Opens a name in a directory without following a symlink. */
  openNode(directory: number, message: Uint8Array, at: number): number;
  /** Makes the node of an open file. */
  nodeOf(fd: number): number;
  /** Writes `struct fuse_attr` and returns the file's identity, unique on the host while the file is open. */
  look(node: number, out: Uint8Array, outAt: number): string | number;
  lookIn(directory: number, message: Uint8Array, at: number, out: Uint8Array, outAt: number): string | number;
  /** Writes the text of a link and returns its bytes. */
  readLinkOf(node: number, out: Uint8Array, outAt: number): number;
  /** Writes `struct fuse_kstatfs`. */
  spaceOf(node: number, out: Uint8Array, outAt: number): number;
  /** Writes `struct fuse_dirent`s from the offset in the message. Returns bytes, 0 at the end. */
  listNode(fd: number, message: Uint8Array, at: number, out: Uint8Array, outAt: number, length: number): number;

  /** Makes and opens a file; `EEXIST` if it exists. */
  createIn(directory: number, message: Uint8Array, at: number, flags: number, mode: number): number;
  /** Makes and opens a file without a name (O_TMPFILE). */
  createUnnamedIn(directory: number, flags: number, mode: number): number;
  /** Makes a directory or node by the type in `mode`; `device` is encoded in 32 bits as in the kernel. */
  makeNodeIn(directory: number, message: Uint8Array, at: number, mode: number, device: number): number;
  /** Makes a symlink; its text follows its name in the message. */
  symlinkIn(directory: number, message: Uint8Array, at: number): number;
  linkIn(directory: number, message: Uint8Array, at: number, node: number): number;
  removeIn(directory: number, message: Uint8Array, at: number, isDirectory: boolean): number;
  /** Renames; the new name follows the old one in the message. `flags` are those of renameat2(2). */
  renameIn(directory: number, message: Uint8Array, at: number, newDirectory: number, flags: number): number;

  changeModeOfNode(node: number, mode: number): number;
  /** Changes owner and group; -1 leaves one unchanged. */
  changeOwnerOfNode(node: number, uid: number, gid: number): number;
  /** Clears the set-user-ID and set-group-ID bits that a write by an ordinary process clears. */
  clearSetIds(node: number): number;
  /** Sets times, in seconds since the epoch and nanoseconds; `timeNow` and `timeOmitted` are nanoseconds. */
  setTimesOf(node: number, atime: number, atimeNs: number, mtime: number, mtimeNs: number): number;
  truncateNode(node: number, size: number): number;
  truncateFile(fd: number, size: number): number;
  /** Writes the value and returns its bytes; with a `length` of 0 only returns them. */
  getAttribute(node: number, message: Uint8Array, at: number, out: Uint8Array, outAt: number, length: number): number;
  listAttributes(node: number, out: Uint8Array, outAt: number, length: number): number;
  /** Sets an attribute; the value follows the name in the message. */
  setAttribute(node: number, message: Uint8Array, at: number, size: number, flags: number): number;
  removeAttribute(node: number, message: Uint8Array, at: number): number;

  /** Opens a regular file or directory; `EACCES` for other nodes. */
  openFile(node: number, flags: number): number;
  /** Opens an open file again with the same access, even if its mode now forbids it. */
  reopenFile(node: number, accessMode: number): number;
  readAt(fd: number, out: Uint8Array, outAt: number, length: number, offset: number): number;
  writeAt(fd: number, message: Uint8Array, at: number, length: number, offset: number): number;
  /** Whether a file is on a file system that is known to be on a disk or in memory of this host. */
  isLocal(fd: number): boolean;
  /** Returns the result of close(2) on a duplicate; the file stays open. */
  closeOne(fd: number): number;
  /** fallocate(2). */
  allocate(fd: number, mode: number, offset: number, length: number): number;
  /** lseek(2), for SEEK_DATA and SEEK_HOLE. */
  seekFrom(fd: number, offset: number, whence: number): number;
  copyBetween(from: number, fromOffset: number, to: number, toOffset: number, length: number): number;

  /** Returns a descriptor that is readable when a flush has ended. Throws. */
  openFlushes(): number;
  /** Starts fsync or fdatasync in a thread; `EAGAIN` if too many are under way. */
  startFlush(fd: number, isDataOnly: boolean, id: number): number;
  /** Returns a flush that has ended, with its errno (positive; 0 for success). Throws. */
  flushed(): { readonly id: number; readonly error: number };

  /** Sets the `struct fuse_file_lock` in the message for the open file description (F_OFD_SETLK). Never waits. */
  lockRange(fd: number, message: Uint8Array, at: number): number;
  /** Replaces the lock in the message by the one that conflicts, without its process, or by one of type F_UNLCK. */
  testLock(fd: number, message: Uint8Array, at: number): number;
  /** Calls flock(2) by lock type (0 shared, 1 exclusive, 2 none). Never waits. */
  lockFile(fd: number, type: number): number;
}

/** Nanoseconds that stand for the present time, and for no change (utimensat(2)). */
export const timeNow = 0x3fffffff;
export const timeOmitted = 0x3ffffffe;
