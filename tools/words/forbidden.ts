/** Words that our prose does not use, each with what to write instead. Parts of words do not count. */
export const forbidden: Readonly<Record<string, string>> = {
  whoever: 'name the person or program, or write "anyone who"',
  whomever: 'name the person or program',
  whatsoever: 'leave it out',
  somebody: 'name the person or program, or write "another process"',
  nobody: 'write "no one", or put the name of the user in backticks',
  anew: 'write "again"',
  afresh: 'write "again"',
  'all the same': 'write "still", or leave it out',
  'of late': 'write "recently"',
  lest: 'write "so that ... does not"',
  therein: 'write "in it"',
  thereof: 'write "of it"',
  hence: 'write "so"',
  'to be sure': 'leave it out',
};
