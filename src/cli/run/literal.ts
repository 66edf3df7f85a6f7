/**
 * A word that a Pod passes on unchanged: Kubernetes replaces `$(NAME)` in arguments and variables, and `$$` by a dollar.
 */
export const literal = (word: string): string => word.replaceAll(/\$(?=[$(])/g, '$$$$');
