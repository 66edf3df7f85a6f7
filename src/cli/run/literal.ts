/**
 * Escapes a word so that a Pod passes it on unchanged: Kubernetes replaces `$(NAME)` in arguments and variables, and
 * `$$` by a dollar.
 */
export const literal = (word: string): string => word.replaceAll(/\$(?=[$(])/g, '$$$$');
