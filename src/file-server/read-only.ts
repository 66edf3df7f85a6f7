import { opcode, openFlags } from './fuse.ts';
import type { Request } from './message.ts';

/** Requests that change a file, its attributes or a name. */
const changes: ReadonlySet<number> = new Set([
  opcode.setAttributes,
  opcode.symlink,
  opcode.makeNode,
  opcode.makeDirectory,
  opcode.removeFile,
  opcode.removeDirectory,
  opcode.rename,
  opcode.rename2,
  opcode.link,
  opcode.write,
  opcode.setXattr,
  opcode.removeXattr,
  opcode.create,
  opcode.createUnnamed,
  opcode.fallocate,
  opcode.copyFileRange,
]);

/** Whether a read-only share refuses a request. A proper guest kernel refuses it before. */
export function wouldChange(request: Request): boolean {
  if (request.opcode !== opcode.open) return changes.has(request.opcode);
  return (request.u32(0) & (openFlags.accessMode | openFlags.truncate)) !== 0;
}
