const rules: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  // https://user:password@host
  [/(\b[a-z][a-z0-9+.-]{1,20}:\/\/)[^\s/@"']{1,500}@/gi, '$1REDACTED@'],
  // Authorization: Bearer x
  [/\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}/gi, '$1 REDACTED'],
  // password=x, "token": "x"
  [/\b([a-z0-9_-]{0,30}(?:password|passwd|token|secret|api[_-]?key)"?\s*[=:]\s*)"[^"\n]*"/gi, '$1"REDACTED"'],
  [/\b([a-z0-9_-]{0,30}(?:password|passwd|token|secret|api[_-]?key)"?\s*[=:]\s*)[^\s,;"]+/gi, '$1REDACTED'],
];

/** Replaces what looks like a credential. The second fence: nothing that is known to hold one gets this far. */
export const redact = (text: string): string =>
  rules.reduce((redacted, [pattern, replacement]) => redacted.replaceAll(pattern, replacement), text);
