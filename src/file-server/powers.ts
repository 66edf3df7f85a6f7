/** Rights of the file server, and calls to give them up (`powers.c`). Calls throw unless they say otherwise. */
export interface Powers {
  /** Returns the type and device (`MAJOR:MINOR`) of a file system, or a negative errno. */
  fileSystemOf(fd: number): { readonly type: number; readonly device: string } | number;
  /** Opens a path that ends with NUL, without following symlinks. Returns an O_PATH descriptor or a negative errno. */
  openMountPoint(path: Uint8Array): number;
  /** Mounts an empty, read-only directory or file over a directory or file. */
  cover(fd: number): void;

  /**
   * Removes /proc except the process's own descriptors, makes the root read-only and enters a user namespace in which
   * capabilities apply to files only. Called once; nothing is mounted afterwards.
   */
  enterJail(): void;
  /** Replaces `enterJail` in tests. */
  stayOutside(): void;
  /**
   * Keeps only the capabilities for files and for acting as other users, clears the umask, limits descriptors unless
   * the host's limit is lower, and forbids dumps. Called once, after `enterJail`.
   */
  takePowers(descriptors: number): void;
  /** Restricts system calls with a program of seccomp(2). */
  filterCalls(program: Uint8Array): void;

  /**
   * Makes later calls as that user: root with capabilities for files, others without. The guest's kernel has checked
   * the user's groups, which only it knows.
   */
  actAs(uid: number, gid: number): void;
}
