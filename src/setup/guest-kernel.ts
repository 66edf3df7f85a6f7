import { join } from 'node:path';

/**
 * The kernels that machines may have. `debian`: as Debian has built it; `small`: built by set-up of the same source, without what
 * no pod uses (`parts/small-kernel.ts`).
 */
export const guestKernels = ['debian', 'small'] as const;
export type GuestKernel = (typeof guestKernels)[number];

/** Names of the parts that each kernel has of its own. */
export const partsOfKernel = {
  debian: { kernel: 'kernel', modules: 'modules', initramfs: 'initramfs' },
  small: { kernel: 'small-kernel', modules: 'small-modules', initramfs: 'small-initramfs' },
} as const satisfies Record<GuestKernel, Record<string, string>>;

/** Paths of the assets with this kernel in the directories of their parts; undefined if there is no such part. */
export function pathsWith(kernel: GuestKernel, directoryOf: (part: string) => string | undefined) {
  const own = partsOfKernel[kernel];
  const paths = {
    sysroot: pathIn(directoryOf('sysroot'), 'root'),
    kernel: pathIn(directoryOf(own.kernel), 'vmlinux'),
    initramfs: pathIn(directoryOf(own.initramfs), 'initramfs.img'),
    modules: pathIn(directoryOf(own.modules), 'modules.erofs'),
    fileServer: pathIn(directoryOf('file-server'), 'files'),
  };
  const plugin = pathIn(directoryOf('vmm-plugin'), 'discard-translations.so'); // earlier set-ups made none
  const { sysroot, kernel: vmlinux, initramfs, modules, fileServer } = paths;
  return sysroot && vmlinux && initramfs && modules && fileServer
    ? { sysroot, kernel: vmlinux, initramfs, modules, fileServer, ...(plugin === undefined ? {} : { plugin }) }
    : undefined;
}

const pathIn = (directory: string | undefined, name: string) =>
  directory === undefined ? undefined : join(directory, name);
