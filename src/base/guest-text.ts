/** Maximum characters of one line for a person or a log, unless a caller needs another limit. */
const maxPrintableChars = 400;

/**
 * Holds text and returns it only escaped: conversions that the compiler does not see (`String()`, `join`,
 * `JSON.stringify`, an inspection) return the result of `printable`.
 */
class HeldText {
  readonly #raw: string;

  constructor(raw: string) {
    this.#raw = raw;
  }

  static rawOf(text: HeldText): string {
    return text.#raw;
  }

  toString(): string {
    return escaped(this.#raw, maxPrintableChars);
  }

  toJSON(): string {
    return this.toString();
  }

  [Symbol.toPrimitive](): string {
    return this.toString();
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}

/**
 * Free text from inside a machine, or from a program whose messages a pod can choose. It is data: only `printable` shows
 * it, and only `rawText` returns it unchanged. To the compiler it is not a string but also a symbol, because a symbol is
 * the only type that TypeScript refuses in a template literal and beside `+`.
 *
 * Strings that a schema has checked against a closed alphabet (ids, names of disks and interfaces) are parsed values and
 * stay strings; what a container writes to its output stays bytes.
 */
export type GuestText = HeldText & symbol;

/** Marks received text as the guest's. */
export function guestText(raw: string): GuestText {
  return new HeldText(raw) as unknown as GuestText; // SAFE: the symbol exists only for the compiler
}

/**
 * The text unchanged, for three uses: joining it with other text of the guest, matching a pattern, and passing it to the
 * pod's own user in a field that is defined to carry it.
 */
export function rawText(text: GuestText): string {
  return HeldText.rawOf(text);
}

/** One line of at most `maxChars` characters and `...`; control and non-ASCII characters appear escaped. */
export function printable(text: GuestText | string, maxChars = maxPrintableChars): string {
  return escaped(typeof text === 'string' ? text : HeldText.rawOf(text), maxChars);
}

function escaped(text: string, maxChars: number): string {
  const cut = text.length > maxChars ? `${text.slice(0, maxChars)}...` : text;
  return cut.replaceAll(
    /[^\u0020-\u007e]/g,
    (char) => `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  );
}
