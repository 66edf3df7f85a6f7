import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { assertRoom } from './disk-room.ts';
import { pageBytes } from './erofs-format.ts';
import { MemberList } from './member-list.ts';
import type { TarMember } from '../tar/tar-reader.ts';
import { Spool, writeWhole } from './spool.ts';

export const rootfsFile = 'rootfs.erofs';
export const layerFilePattern = /^layer-\d{1,2}$/;
export const listFilePattern = /^members-\d{1,2}$/;
const endsFile = 'ends';
const layerFile = (number: number) => `layer-${number}`;

/** The place of one file's content. */
export interface Content {
  readonly size: number;
  /** The first of its blocks, in the image's own file or in that of its layer. Changes when the former is compacted. */
  block: number;
  /** Number of its layer among those with a file of their own; undefined: it is in the image's own file. */
  readonly layer: number | undefined;
  /** Where the end that fills no block is among all such ends; undefined: it has a block of its own. */
  readonly endAt: number | undefined;
}

/** Part of the blocks of the image's own file that may hold content that no name leads to. */
const maxUnusedPart = 1 / 16;
const copyBytes = 1024 ** 2;
/** Unit of the checks for room on the disk, and of what is sent to the disk while more is read. */
const stretchBytes = 64 * 1024 ** 2;

interface DigestedFile {
  readonly file: string;
  readonly digest: string;
}

/** The file of a layer; `at`: the number of the layer; `members`: the list of its members. */
export interface LayerFile extends DigestedFile {
  readonly at: number;
  readonly members: DigestedFile;
}

/** The files of an image, in the order in which their bytes are the EROFS file system. */
export interface ImageFiles {
  /** Digest of the image's own file. */
  readonly digest: string;
  /** Those of layers, without those that were stored before. */
  readonly layers: readonly LayerFile[];
}

/** A layer with a file that is being made, or that was stored before. */
type OwnLayer =
  | { readonly at: number; readonly file: FileHandle; readonly spool: Spool; readonly members: MemberList }
  | { readonly blocks: number };

/**
 * An EROFS file system while its layers are read: the content of files as it comes, in blocks from the second on of the
 * image's own file, or in the file of its layer, whose bytes depend on nothing but the layer. Ends that fill no
 * block of the former wait in a file of their own, since they are stored beside inodes.
 */
export class ContentFile implements AsyncDisposable {
  readonly #work: string;
  readonly #file: FileHandle;
  readonly #endsFile: FileHandle;
  readonly #blocks: Spool;
  readonly #ends: Spool;
  readonly #layers: OwnLayer[] = [];
  /** The present layer, if it has a file of its own. */
  #layer: OwnLayer | undefined;
  #unchecked = 0;

  private constructor(work: string, file: FileHandle, endsFile: FileHandle) {
    this.#work = work;
    this.#file = file;
    this.#endsFile = endsFile;
    this.#blocks = new Spool(file, pageBytes);
    this.#ends = new Spool(endsFile, 0);
  }

  /** Makes the file in a directory that has none. */
  static async create(work: string): Promise<ContentFile> {
    const file = await open(join(work, rootfsFile), 'wx+', 0o600);
    const ends = await open(join(work, endsFile), 'wx+', 0o600);
    return new ContentFile(work, file, ends);
  }

  /** Begins the next layer, which has a file of its own if it `hasFile`: what is added next belongs to it. */
  async startLayer(at: number, hasFile: boolean): Promise<void> {
    await this.#endLayer();
    if (!hasFile) return;
    const members = await MemberList.create(this.#work, `members-${this.#layers.length}`);
    const file = await open(join(this.#work, layerFile(this.#layers.length)), 'wx+', 0o600);
    this.#layer = { at, file, spool: new Spool(file, 0), members };
    this.#layers.push(this.#layer);
  }

  /** Begins the next layer, whose file of that many blocks is stored. */
  async startStored(blocks: number): Promise<void> {
    await this.#endLayer();
    this.#layer = { blocks };
    this.#layers.push(this.#layer);
  }

  async #endLayer(): Promise<void> {
    if (this.#layer !== undefined && 'spool' in this.#layer) {
      await this.#layer.spool.flush();
      await this.#layer.members.flush();
    }
    this.#layer = undefined;
  }

  /** Lists a member of the present layer, if that has a file of its own, for other images. */
  async list(member: TarMember, content: Content | undefined): Promise<void> {
    if (this.#layer !== undefined && 'members' in this.#layer) await this.#layer.members.add(member, content?.block);
  }

  /** Returns the place of content that is in the file of the present layer already. */
  stored(size: number, block: number): Content {
    return { size, block, layer: this.#number, endAt: undefined };
  }

  get #number(): number | undefined {
    return this.#layer && this.#layers.indexOf(this.#layer);
  }

  /**
   * Stores the content of a file; `canBeInline`: whether its end can follow the inode. In the file of a layer it does not,
   * since all its content is to be there. Errors: those of the content, `exhausted` (disk).
   */
  async add(content: AsyncIterable<Buffer>, size: number, canBeInline: boolean): Promise<Content> {
    await this.#checkRoom(size);
    const layer = this.#number;
    const spool = this.#layer !== undefined && 'spool' in this.#layer ? this.#layer.spool : this.#blocks;
    const isInline = canBeInline && this.#layer === undefined;
    const block = spool.end / pageBytes;
    const endAt = isInline ? this.#ends.end : undefined;
    let left = isInline ? size - (size % pageBytes) : size;
    for await (const chunk of content) {
      const whole = chunk.subarray(0, left);
      left -= whole.length;
      if (whole.length > 0) await spool.add(whole);
      if (whole.length < chunk.length) await this.#ends.addCopy(chunk.subarray(whole.length));
    }
    if (!isInline) await spool.add(Buffer.alloc(paddingOf(size)));
    return { size, block, layer, endAt };
  }

  async #checkRoom(bytes: number): Promise<void> {
    this.#unchecked -= bytes;
    if (this.#unchecked >= 0) return;
    await assertRoom(this.#work, bytes, 'flatten the image');
    this.#unchecked = stretchBytes;
  }

  /** Number of blocks of the image's own file so far. */
  get blocks(): number {
    return this.#blocks.end / pageBytes;
  }

  /** Returns the first block of each layer with a file of its own, and the end, if they follow that many blocks. */
  layersBehind(blocks: number): readonly number[] {
    const firsts = [blocks];
    for (const layer of this.#layers) {
      const own = 'spool' in layer ? layer.spool.end / pageBytes : layer.blocks;
      firsts.push((firsts.at(-1) ?? 0) + own);
    }
    return firsts;
  }

  /** Removes content of the image's own file that is not in use, if it is much. The same content in use gives the same file. */
  async compact(used: Iterable<Content>): Promise<void> {
    const own = [...used].filter((content) => content.layer === undefined && blocksOf(content) > 0);
    const inOrder = own.sort((a, b) => a.block - b.block);
    const sum = inOrder.reduce((blocks, content) => blocks + blocksOf(content), 1);
    if (this.blocks - sum <= this.blocks * maxUnusedPart) return;
    await this.#blocks.flush();
    let next = 1;
    const buffer = Buffer.alloc(copyBytes);
    for (const content of inOrder) {
      const blocks = blocksOf(content);
      if (content.block !== next) await this.#move(content.block, next, blocks, buffer);
      content.block = next;
      next += blocks;
    }
    await this.#file.truncate(next * pageBytes);
    this.#blocks.end = next * pageBytes;
  }

  async #move(from: number, to: number, blocks: number, buffer: Buffer): Promise<void> {
    for (let done = 0; done < blocks * pageBytes;) {
      const length = Math.min(buffer.length, blocks * pageBytes - done);
      const { bytesRead } = await this.#file.read(buffer, 0, length, from * pageBytes + done);
      if (bytesRead === 0) throw new PodvmError('internal', 'Cannot flatten the image: its file ends early');
      await writeWhole(this.#file, buffer.subarray(0, bytesRead), to * pageBytes + done);
      done += bytesRead;
    }
  }

  /** Reads the end that follows an inode. After `finishContent`. */
  readEnd({ size, endAt }: Content): Buffer {
    const end = Buffer.alloc(endAt === undefined ? 0 : size % pageBytes);
    // Not a promise each: there may be a million, and this process has nothing else to do.
    if (end.length > 0 && readSync(this.#endsFile.fd, end, 0, end.length, endAt ?? 0) !== end.length)
      throw new PodvmError('internal', 'Cannot flatten the image: the end of a file is missing');
    return end;
  }

  async finishContent(): Promise<void> {
    await this.#endLayer();
    await this.#ends.flush();
  }

  /** Adds blocks behind all others. */
  async addBlocks(blocks: Buffer): Promise<void> {
    await this.#checkRoom(blocks.length);
    await this.#blocks.add(blocks);
  }

  /** Writes the first block, sends the files to the disk, and returns their digests. */
  async finish(first: Buffer): Promise<ImageFiles> {
    await this.#blocks.flush();
    await writeWhole(this.#file, first, 0);
    const layers: LayerFile[] = [];
    for (const [number, layer] of this.#layers.entries()) {
      if (!('spool' in layer)) continue;
      const { at, file, spool, members } = layer;
      const name = layerFile(number);
      if (spool.end > 0) {
        const list = { file: members.name, digest: await syncedDigest(members.file) };
        layers.push({ at, file: name, digest: await syncedDigest(file), members: list });
      } else for (const unused of [name, members.name]) await rm(join(this.#work, unused)); // it has only names
    }
    return { digest: await syncedDigest(this.#file), layers };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const layer of this.#layers) {
      if (!('spool' in layer)) continue;
      await layer.file.close();
      await layer.members[Symbol.asyncDispose]();
    }
    await this.#file.close();
    await this.#endsFile.close();
    await rm(join(this.#work, endsFile), { force: true });
  }
}

async function syncedDigest(file: FileHandle): Promise<string> {
  const syncing = file.sync();
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(copyBytes);
  for (let at = 0; ;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  await syncing;
  return `sha256:${hash.digest('hex')}`;
}

const blocksOf = ({ size, endAt }: Content) => (endAt === undefined ? Math.ceil : Math.floor)(size / pageBytes);
const paddingOf = (bytes: number) => (pageBytes - (bytes % pageBytes)) % pageBytes;
