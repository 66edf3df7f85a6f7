import { opcode, openFlags } from './fuse.ts';
import type { Request } from './message.ts';

/** Everything that changes a file, a name or what belongs to a file. Creating is opening, too, but of what is not there. */
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

/** Whether a share that is read-only refuses it. The guest's kernel refuses it before, if it is what it should be. */
export function wouldChange(request: Request): boolean {
  if (request.opcode !== opcode.open) return changes.has(request.opcode);
  return (request.u32(0) & (openFlags.accessMode | openFlags.truncate)) !== 0;
}
