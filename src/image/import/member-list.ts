import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import * as v from 'valibot';
import { pageBytes } from './erofs-format.ts';
import { Spool } from './spool.ts';
import type { TarMember } from '../tar/tar-reader.ts';
import type { Fault } from '../tar/tar-bytes.ts';

/** A member of a layer, and the first block of its content in the layer's file; a file without content has none. */
export interface ListedMember {
  readonly member: TarMember;
  readonly block?: number;
}

const count = v.pipe(v.number(), v.safeInteger());
const natural = v.pipe(count, v.minValue(0));
const lineSchema = v.strictTuple([
  v.string(),
  v.picklist(['file', 'link', 'symlink', 'char', 'block', 'directory', 'fifo']),
  natural,
  natural,
  natural,
  count,
  natural,
  natural,
  v.string(),
  v.tuple([natural, natural]),
  v.array(v.tuple([v.string(), v.string()])),
  v.nullable(natural),
]);

/** Writes the members of a layer, a line of JSON for each, so that another image can have the layer without its blob. */
export class MemberList implements AsyncDisposable {
  readonly name: string;
  readonly file: FileHandle;
  readonly #spool: Spool;

  private constructor(name: string, file: FileHandle) {
    this.name = name;
    this.file = file;
    this.#spool = new Spool(file, 0);
  }

  static async create(work: string, name: string): Promise<MemberList> {
    return new MemberList(name, await open(join(work, name), 'wx+', 0o600));
  }

  async add(member: TarMember, block?: number): Promise<void> {
    const { name, type, mode, uid, gid, mtimeS, mtimeNs, size, target, device, xattrs } = member;
    const line = [name, type, mode, uid, gid, mtimeS, mtimeNs, size, target, device, [...xattrs], block ?? null];
    await this.#spool.add(Buffer.from(`${JSON.stringify(line)}\n`));
  }

  async flush(): Promise<void> {
    await this.#spool.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file.close();
  }
}

/**
 * Yields the members of a list whose layer has a file of that many blocks. A process that had read a hostile image may have
 * written it. Errors: the fault.
 */
export async function* listedMembers(fd: number, blocks: number, fault: Fault): AsyncGenerator<ListedMember> {
  const input = createReadStream('', { fd, autoClose: false, start: 0 });
  const lines = createInterface({ input, crlfDelay: Infinity });
  for await (const line of lines) {
    const parsed = v.safeParse(lineSchema, parseJson(line));
    if (!parsed.success) throw fault('the stored list of its members is damaged');
    const [name, type, mode, uid, gid, mtimeS, mtimeNs, size, target, device, xattrs, block] = parsed.output;
    const member = { name, type, mode, uid, gid, mtimeS, mtimeNs, size, target, device, xattrs: new Map(xattrs) };
    if (block === null) yield { member };
    else if (block + Math.ceil(size / pageBytes) <= blocks) yield { member, block };
    else throw fault('the stored list of its members leads outside of its content');
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
