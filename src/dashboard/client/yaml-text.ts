type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Text that YAML 1.1 and 1.2 take for a string, and for nothing else, without quotes. */
const plain = /^(?!(?:true|false|yes|no|on|off|null|y|n|x)$)[A-Za-z/][-A-Za-z0-9_./]*(?::[-A-Za-z0-9_./]+)*$/i;

/** Formats JSON as YAML in blocks; all other strings have JSON's quotes, which are YAML's. */
export function yamlText(value: unknown): string {
  // SAFE: what JSON.parse makes
  return blockOf(JSON.parse(JSON.stringify(value)) as Json, '').replace(/^\n/, '');
}

/** The text of a value after its key or dash: on the same line, or on lines of its own with `indent`. */
function blockOf(value: Json, indent: string): string {
  if (typeof value !== 'object' || value === null) return ` ${scalarOf(value)}\n`;
  if (isList(value)) {
    if (value.length === 0) return ' []\n';
    return `\n${value.map((item) => `${indent}-${blockOf(item, `${indent}  `).replace(/^\n\s*/, ' ')}`).join('')}`;
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return ' {}\n';
  const next = (item: Json) => (isList(item) ? indent : `${indent}  `);
  return `\n${entries.map(([key, item]) => `${indent}${scalarOf(key)}:${blockOf(item, next(item))}`).join('')}`;
}

const isList = (value: Json): value is readonly Json[] => Array.isArray(value);

const scalarOf = (value: null | boolean | number | string): string =>
  typeof value === 'string' && plain.test(value) ? value : JSON.stringify(value);
