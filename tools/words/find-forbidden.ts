import { forbidden } from './forbidden.ts';

export interface Finding {
  readonly line: number;
  readonly words: string;
  readonly instead: string;
}

const patterns = Object.entries(forbidden).map(([words, instead]) => ({
  instead,
  pattern: new RegExp(`\\b${words.replaceAll(' ', '\\s+(?:\\*\\s+|//\\s+)?')}\\b`, 'gi'), // also across lines of a comment
}));

/** Forbidden words in the prose of a file: of a page all but its code, of a program its comments. */
export function findForbidden(path: string, text: string): Finding[] {
  const prose = blank(path.endsWith('.md') ? blank(text, /^```[^]*?^```/gm) : commentsOf(text), /`[^`\n]*`/g);
  return patterns
    .flatMap(({ pattern, instead }) =>
      [...prose.matchAll(pattern)].map(({ 0: words, index }) => ({
        line: prose.slice(0, index).split('\n').length,
        words: words.replace(/\s+/g, ' '),
        instead,
      })),
    )
    .sort((a, b) => a.line - b.line);
}

/** Spaces in place of what matches, so that lines keep their numbers. */
function blank(text: string, pattern: RegExp): string {
  return text.replace(pattern, (match) => match.replace(/[^\n]/g, ' '));
}

/** The comments, with spaces in place of all else. */
function commentsOf(text: string): string {
  let prose = '';
  for (const { 0: comment, index } of text.matchAll(/\/\*[^]*?\*\/|(?<=^|\s)\/\/ .*/gm)) {
    prose += `${blank(text.slice(prose.length, index), /[^]+/g)}${comment}`;
  }
  return prose;
}
