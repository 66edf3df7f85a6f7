const name = String.raw`[a-z0-9_-]{0,30}(?:pass(?:word|wd|phrase)|token|secret|credentials?|auth|signature|(?:api|private)[_-]?key)`;

const rules: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  // https://user:p@ssword@host, https://host/blob?signature=x
  [/(\b[a-z][a-z0-9+.-]{1,20}:\/\/)[^\s/"']{1,4000}@/gi, '$1REDACTED@'],
  [/(\bhttps?:\/\/[^\s"'?]{1,500}\?)[^\s"']+/gi, '$1REDACTED'],
  // Authorization: Bearer x
  [/\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}/gi, '$1 REDACTED'],
  // {\"password\":\"x\"}, also in a string; "token": "x"; secret='x'; password=x
  [new RegExp(String.raw`\b(${name}\\*["']?\s*[=:]\s*)\\+"[^"\n]*"?`, 'gi'), '$1"REDACTED"'],
  [new RegExp(String.raw`\b(${name}["']?\s*[=:]\s*)"(?:[^"\\\n]|\\.)*"?`, 'gi'), '$1"REDACTED"'],
  [new RegExp(String.raw`\b(${name}["']?\s*[=:]\s*)'[^'\n]*'?`, 'gi'), '$1"REDACTED"'],
  [new RegExp(String.raw`\b(${name}["']?\s*[=:]\s*)[^\s"]+`, 'gi'), '$1REDACTED'],
];

/** Replaces what looks like a credential. The second fence: nothing that is known to hold one gets this far. */
export const redact = (text: string): string =>
  rules.reduce((redacted, [pattern, replacement]) => redacted.replaceAll(pattern, replacement), text);
