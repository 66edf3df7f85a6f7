import { constants, type FileHandle, open } from 'node:fs/promises';
import type { Fault } from '../tar/tar-bytes.ts';

/** Opens a layer's blob for reading. Errors: `corrupt` if it is missing or no regular file. */
export async function openLayer(path: string, fault: Fault): Promise<FileHandle> {
  // A pipe in another program's layout would block forever, and a link may lead to a file that only root can read.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (cause: unknown) => {
      const { code } = cause as NodeJS.ErrnoException;
      throw fault(code === 'ELOOP' || code === 'ENXIO' ? 'it is not a regular file' : 'it is missing', cause);
    },
  );
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw fault('it is not a regular file');
}
