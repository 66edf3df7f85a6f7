/** What a file server may do, and gives up (`powers.c`). Unless it says otherwise, a call throws. */
export interface Powers {
  /** Negative errno where that cannot be told. Device: `MAJOR:MINOR`. */
  fileSystemOf(fd: number): { readonly type: number; readonly device: string } | number;
  /** O_PATH descriptor of what is at a path that ends with NUL, no symbolic link followed, or a negative errno. */
  openMountPoint(path: Uint8Array): number;
  /** Mounts something empty, read-only, over the directory or file. */
  cover(fd: number): void;

  /**
   * Once: takes /proc away, but for the own descriptors, makes the root read-only and enters a user namespace in which
   * capabilities count for files alone. Nothing is mounted afterwards.
   */
  enterJail(): void;
  /** In place of it, for tests. */
  stayOutside(): void;
  /**
   * Once, after it: keeps capabilities over files alone, and when acting as others, clears the umask, bounds the
   * descriptors as far as the host does not, forbids dumps.
   */
  takePowers(descriptors: number): void;
  /** From here on only these system calls: a program of seccomp(2). */
  filterCalls(program: Uint8Array): void;

  /**
   * From here on, calls are made as that user: with root's capabilities over files if it is root, and otherwise with
   * none. Of the user's groups the guest's kernel alone knows, and has checked them.
   */
  actAs(uid: number, gid: number): void;
}
