/** Files of Debian packages that set-up removes after unpacking, below the root; absent ones are ignored. */

const documentation = ['doc', 'man', 'info', 'locale', 'lintian', 'bug'].map((name) => `usr/share/${name}`);

/** Conversions of character sets, 8 MB. */
const conversions = 'usr/lib/x86_64-linux-gnu/gconv';

/** Files that the sysroot does not need, such as programs and firmware of other kinds of machines: 10 MB. */
export const unneededInSysroot: readonly string[] = [
  ...documentation,
  conversions,
  ...['i386', 'x86_64-microvm'].map((name) => `usr/bin/qemu-system-${name}`),
  ...['qemu-pr-helper', 'qemu-vmsr-helper'].map((name) => `usr/bin/${name}`),
  ...['keymaps', 'openbios-ppc', 'openbios-sparc32', 'openbios-sparc64', 'skiboot.lid', 'slof.bin', 'u-boot.e500'].map(
    (name) => `usr/share/qemu/${name}`,
  ),
];

/**
 * Also the compiler's files for link-time optimisation, profiles, and checks that no build uses, 100 MB. The tests use
 * the shared libraries of two checks (`buildProgram`).
 */
export const unneededInBuildRoot: readonly string[] = [
  ...documentation,
  conversions,
  ...['usr/bin/x86_64-linux-gnu-lto-dump-14', 'usr/libexec/gcc/x86_64-linux-gnu/14/lto1'],
  ...['libasan.a', 'libhwasan.a', 'liblsan.a', 'libtsan.a', 'libubsan.a'].map(
    (name) => `usr/lib/gcc/x86_64-linux-gnu/14/${name}`,
  ),
  ...[
    'gprofng',
    'libcap2/tests',
    'libgprofng.so.0.0.0',
    'libhwasan.so.0.0.0',
    'liblsan.so.0.0.0',
    'libtsan.so.2.0.0',
  ].map((name) => `usr/lib/x86_64-linux-gnu/${name}`),
];
