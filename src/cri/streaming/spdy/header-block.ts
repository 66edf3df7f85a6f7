import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { headerDictionary, headerDictionaryId } from './dictionary.ts';
import { spdyLimits } from './limits.ts';
import { brokenRule } from './spdy-error.ts';

/** Headers with names in lower case; multiple values of a name are joined by NUL, as received. */
export type Headers = ReadonlyMap<string, string>;

const windowBytes = 32 * 1024;
const zlibHeaderBytes = 6;

/**
 * Decompresses the header blocks of one direction. They are one zlib stream, flushed to a byte boundary after each
 * block, so that only the last 32 KiB of text affect the next block. Each block is decompressed separately with that
 * text as its dictionary, synchronously and within a limit.
 */
export class HeaderInflater {
  #history: Buffer | undefined;

  /** Decompresses a block. Errors: `invalid`, after which the session's headers cannot be read. */
  inflate(block: Buffer): Headers {
    const deflated = this.#history === undefined ? withoutZlibHeader(block) : block;
    const history = this.#history ?? headerDictionary;
    let text: Buffer;
    try {
      text = inflateRawSync(deflated, {
        dictionary: history,
        finishFlush: constants.Z_SYNC_FLUSH,
        maxOutputLength: spdyLimits.headerBlockBytes,
      });
    } catch {
      throw brokenRule('headers that cannot be decompressed within the limit');
    }
    this.#history = Buffer.concat([history, text]).subarray(-windowBytes);
    return parseHeaderBlock(text);
  }
}

/** Compresses the header blocks of one direction. They are so short that none refers to an earlier one. */
export class HeaderDeflater {
  #hasBegun = false;

  deflate(headers: Headers): Buffer {
    const deflated = deflateRawSync(formatHeaderBlock(headers), { finishFlush: constants.Z_SYNC_FLUSH });
    if (this.#hasBegun) return deflated;
    this.#hasBegun = true;
    const zlibHeader = Buffer.from([0x78, 0xbb, 0, 0, 0, 0]); // deflate, 32 KiB, best compression, with a dictionary
    zlibHeader.writeUInt32BE(headerDictionaryId, 2);
    return Buffer.concat([zlibHeader, deflated]);
  }
}

/** Removes the zlib header (RFC 1950, section 2.2). */
function withoutZlibHeader(block: Buffer): Buffer {
  const isZlib =
    block.length >= zlibHeaderBytes &&
    block.readUInt16BE(0) % 31 === 0 &&
    (block.readUInt8(0) & 0x0f) === 8 &&
    (block.readUInt8(1) & 0x20) !== 0 &&
    block.readUInt32BE(2) === headerDictionaryId;
  if (!isZlib) throw brokenRule("headers that are not compressed with SPDY/3's dictionary");
  return block.subarray(zlibHeaderBytes);
}

function parseHeaderBlock(text: Buffer): Headers {
  let at = 0;
  const number = () => {
    if (at + 4 > text.length) throw brokenRule('headers that end too early');
    at += 4;
    return text.readUInt32BE(at - 4);
  };
  const word = () => {
    const length = number();
    if (at + length > text.length) throw brokenRule('headers that end too early');
    at += length;
    return text.toString('latin1', at - length, at);
  };
  const count = number();
  if (count > spdyLimits.headers) throw brokenRule(`${count} headers on one stream`);
  const headers = new Map<string, string>();
  for (let index = 0; index < count; index += 1) {
    const name = word();
    if (name === '' || name !== name.toLowerCase() || headers.has(name)) {
      throw brokenRule('a header without a name, not in lower case, or twice');
    }
    headers.set(name, word());
  }
  if (at !== text.length) throw brokenRule('bytes after the last header');
  return headers;
}

function formatHeaderBlock(headers: Headers): Buffer {
  const parts: Buffer[] = [];
  const number = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    parts.push(bytes);
  };
  number(headers.size);
  for (const word of [...headers].flat()) {
    const bytes = Buffer.from(word, 'latin1');
    number(bytes.length);
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}
