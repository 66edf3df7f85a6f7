import { podAnnotations } from '#base/pod-annotations.ts';

/** With whom a pod's machine may share a template, from the most to nobody: all of the node, its namespace, none. */
export const templateChoices = podAnnotations.template.words;
export type TemplateChoice = (typeof templateChoices)[number];

/** A node's choice bounds what its pods may share: a pod can ask for less, never for more. */
export function stricterOf(one: TemplateChoice, other: TemplateChoice): TemplateChoice {
  return templateChoices.indexOf(one) > templateChoices.indexOf(other) ? one : other;
}
