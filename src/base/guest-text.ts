/** Characters of one line that a person or a log is shown, unless a caller needs another bound. */
const maxPrintableChars = 400;

/**
 * Holds text and gives it away only escaped: what turns it into a string without the compiler's knowledge (`String()`,
 * `join`, `JSON.stringify`, an inspection) gets what `printable` gives.
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
 * Free text that came from inside a machine, or from a program whose words a pod can choose. It is data: shown by
 * `printable` alone, taken as it is by `rawText` alone. It is no string to the compiler, and also a symbol, because a
 * symbol is the only type that TypeScript refuses in a template literal and beside `+`.
 *
 * Strings that a schema has held against a closed alphabet (ids, names of disks and interfaces) are parsed values and
 * stay strings; what a container writes to its output stays bytes.
 */
export type GuestText = HeldText & symbol;

/** Marks text as said by the guest, where it comes in. */
export function guestText(raw: string): GuestText {
  return new HeldText(raw) as unknown as GuestText; // SAFE: the symbol exists for the compiler alone
}

/**
 * The text as it came, for three uses: joining it with other text of the guest, matching a pattern, and giving it to the
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
