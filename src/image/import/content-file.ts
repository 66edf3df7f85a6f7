import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { assertRoom } from './disk-room.ts';
import { pageBytes } from './erofs-format.ts';
import { Spool, writeWhole } from './spool.ts';

export const rootfsFile = 'rootfs.erofs';
const endsFile = 'ends';

/** The place of one file's content. */
export interface Content {
  readonly size: number;
  /** The first of its blocks. Changes when the file is compacted. */
  block: number;
  /** Where the end that fills no block is among all such ends; undefined: it has a block of its own. */
  readonly endAt: number | undefined;
}

/** Part of the blocks that may hold content that no name leads to. */
const maxUnusedPart = 1 / 16;
const copyBytes = 1024 ** 2;
/** Unit of the checks for room on the disk, and of what is sent to the disk while more is read. */
const stretchBytes = 64 * 1024 ** 2;

/**
 * An EROFS file while the layers are read: the content of files as it comes, in blocks from the second on. The ends that
 * fill no block wait in a file of their own, since they are stored beside inodes.
 */
export class ContentFile implements AsyncDisposable {
  readonly #work: string;
  readonly #file: FileHandle;
  readonly #endsFile: FileHandle;
  readonly #blocks: Spool;
  readonly #ends: Spool;
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

  /**
   * Stores the content of a file; `isInline`: whether its end can follow the inode. Errors: those of the content,
   * `exhausted` (disk).
   */
  async add(content: AsyncIterable<Buffer>, size: number, isInline: boolean): Promise<Content> {
    await this.#checkRoom(size);
    const block = this.#blocks.end / pageBytes;
    const endAt = isInline ? this.#ends.end : undefined;
    let left = isInline ? size - (size % pageBytes) : size;
    for await (const chunk of content) {
      const whole = chunk.subarray(0, left);
      left -= whole.length;
      if (whole.length > 0) await this.#blocks.add(whole);
      if (whole.length < chunk.length) await this.#ends.addCopy(chunk.subarray(whole.length));
    }
    if (!isInline) await this.#blocks.add(Buffer.alloc(paddingOf(size)));
    return { size, block, endAt };
  }

  async #checkRoom(bytes: number): Promise<void> {
    this.#unchecked -= bytes;
    if (this.#unchecked >= 0) return;
    await assertRoom(this.#work, bytes, 'flatten the image');
    this.#unchecked = stretchBytes;
  }

  /** Number of blocks so far. */
  get blocks(): number {
    return this.#blocks.end / pageBytes;
  }

  /** Removes content that is not in use, if it is much. The same content in use gives the same file. */
  async compact(used: Iterable<Content>): Promise<void> {
    const inOrder = [...used].filter((content) => blocksOf(content) > 0).sort((a, b) => a.block - b.block);
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
    await this.#ends.flush();
  }

  /** Adds blocks behind all others. */
  async addBlocks(blocks: Buffer): Promise<void> {
    await this.#checkRoom(blocks.length);
    await this.#blocks.add(blocks);
  }

  /** Writes the first block, sends the file to the disk, and returns its digest. */
  async finish(first: Buffer): Promise<string> {
    await this.#blocks.flush();
    await writeWhole(this.#file, first, 0);
    const [digest] = await Promise.all([this.#digest(), this.#file.sync()]);
    return digest;
  }

  async #digest(): Promise<string> {
    const hash = createHash('sha256');
    const buffer = Buffer.alloc(copyBytes);
    for (let at = 0; ;) {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
    return `sha256:${hash.digest('hex')}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    await this.#endsFile.close();
    await rm(join(this.#work, endsFile), { force: true });
  }
}

const blocksOf = ({ size, endAt }: Content) => (endAt === undefined ? Math.ceil : Math.floor)(size / pageBytes);
const paddingOf = (bytes: number) => (pageBytes - (bytes % pageBytes)) % pageBytes;
