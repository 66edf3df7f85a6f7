import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import { PodvmError } from '#base/errors.ts';

const unzstd = promisify(zstdDecompress);
const zstdMagic = 0xfd2fb528;
const elfMagic = Buffer.from('\x7fELF', 'latin1');
const bootProtocolMagic = 'HdrS';
/** Maximum size of a valid kernel; Debian's is 58 MB. */
const maxKernelBytes = 256 * 1024 * 1024;

/**
 * The uncompressed kernel inside a bzImage. QEMU starts it directly through its PVH note, which skips decompression in
 * the guest. Offsets: Linux, Documentation/arch/x86/boot.rst (setup_sects 0x1f1, payload_offset 0x248 counted from the
 * end of the setup sectors, payload_length 0x24c). The payload ends with 4 bytes of uncompressed length.
 * Errors: `corrupt` when it is not a bzImage, `unsupported` when the compression is not zstd.
 */
export async function extractVmlinux(bzImage: Buffer): Promise<Buffer> {
  if (bzImage.length < 0x260 || bzImage.toString('latin1', 0x202, 0x206) !== bootProtocolMagic) {
    throw new PodvmError('corrupt', 'Cannot extract the kernel: expected a bzImage, found no bzImage header');
  }
  const setupSectors = bzImage[0x1f1] || 4; // 0 means 4, for historical reasons (boot.rst)
  const start = (setupSectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  const length = bzImage.readUInt32LE(0x24c);
  if (length < 8 || start + length > bzImage.length) {
    throw new PodvmError(
      'corrupt',
      `Cannot extract the kernel: its payload ends outside of the file: offset ${start}, length ${length}`,
    );
  }
  const payload = bzImage.subarray(start, start + length - 4);
  if (payload.readUInt32LE(0) !== zstdMagic) {
    throw new PodvmError(
      'unsupported',
      `Cannot extract the kernel: expected zstd, got ${payload.toString('hex', 0, 4)}`,
    );
  }
  const size = bzImage.readUInt32LE(start + length - 4);
  const kernel = await unzstd(payload, { maxOutputLength: maxKernelBytes }).catch((cause: unknown) => {
    throw new PodvmError('corrupt', 'Cannot extract the kernel: its payload does not decompress', { cause });
  });
  if (kernel.length !== size || !kernel.subarray(0, 4).equals(elfMagic)) {
    throw new PodvmError('corrupt', `Cannot extract the kernel: expected ${size} bytes of ELF, got ${kernel.length}`);
  }
  return kernel;
}
