/**
 * Text and bytes that came from inside a machine, a registry or an archive. They are data, never trusted and never
 * printed raw: `printable` is the only way from here to a log or a message.
 */
export type GuestText = string & { readonly __guest: unique symbol };
export type GuestBytes = Uint8Array & { readonly __guest: unique symbol };

const maxPrintableChars = 400;

/** One line of at most 400 characters; control and non-ASCII characters appear escaped. */
export function printable(text: string, maxChars = maxPrintableChars): string {
  const cut = text.length > maxChars ? `${text.slice(0, maxChars)}...` : text;
  return cut.replaceAll(
    /[^\u0020-\u007e]/g,
    (char) => `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  );
}
