import { git } from './base.ts';

/** A figure that may grow, by a line at the end of a commit's message: `Regression-accepted: startMs because REASON`. */
export interface Accepted {
  readonly figure: string;
  readonly reason: string;
  /** Abbreviated. */
  readonly commit: string;
}

const key = 'Regression-accepted';
const commitMark = '\0';

/** Growth that commits after the base accept. Errors: a line that names none of the figures, or no reason. */
export async function acceptedSince(
  repo: string,
  base: string,
  figures: readonly string[],
): Promise<readonly Accepted[]> {
  const format = `--format=%x00%h%n%(trailers:key=${key},valueonly,unfold)`;
  return parseAccepted(await git(repo, 'log', format, `${base}..HEAD`), figures);
}

/** `text`: of each commit a NUL, its name and its lines. */
function parseAccepted(text: string, figures: readonly string[]): readonly Accepted[] {
  return text.split(commitMark).flatMap((each) => {
    const [commit = '', ...lines] = each.split('\n').filter((line) => line !== '');
    return lines.map((line) => {
      const [, figure = '', reason = ''] = /^(\w+) because (\S.*)$/.exec(line) ?? [];
      if (figures.includes(figure)) return { figure, reason, commit };
      throw new Error(
        `the commit ${commit} has \`${key}: ${line}\`, expected \`${key}: ${figures.join('|')} because REASON\``,
      );
    });
  });
}
