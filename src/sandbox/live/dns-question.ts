import { randomInt } from 'node:crypto';

/** A question to a name server, and what its answer says (RFC 1035, section 4.1.1). */
export interface DnsQuestion {
  readonly name: string;
  readonly bytes: Buffer;
  /** Returns the response code (`NOERROR`), or undefined for bytes that are no answer to this question. */
  outcomeOf(answer: Uint8Array): string | undefined;
}

const types = { a: 1, ns: 2 } as const;
const outcomes = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'] as const;
const headerBytes = 12;
const recursionDesired = 0x0100;
const isResponse = 0x8000;

/** Asks for the addresses of a name, or with an empty name for the servers of the root, which every resolver knows. */
export function dnsQuestion(name: string, id = randomInt(0x1_0000)): DnsQuestion {
  const labels = name.split('.').filter((label) => label !== '');
  const question = Buffer.concat([
    ...labels.map((label) => Buffer.from([label.length, ...Buffer.from(label, 'latin1')])),
    Buffer.from([0, 0, labels.length === 0 ? types.ns : types.a, 0, 1]),
  ]);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(recursionDesired, 2);
  header.writeUInt16BE(1, 4);
  return {
    name: name === '' ? 'the root' : name,
    bytes: Buffer.concat([header, question]),
    outcomeOf(answer) {
      const bytes = Buffer.from(answer);
      if (bytes.length < headerBytes || bytes.readUInt16BE(0) !== id) return undefined;
      const flags = bytes.readUInt16BE(2);
      if ((flags & isResponse) === 0) return undefined;
      const code = flags & 0xf;
      return outcomes[code] ?? `code ${code}`;
    },
  };
}
