import { podAnnotations } from '#base/pod-annotations.ts';

/** With which pods a machine may share a template: all of the node, its namespace, none. */
export const templateChoices = podAnnotations.template.words;
export type TemplateChoice = (typeof templateChoices)[number];

/** The stricter choice: a pod can ask for less sharing than its node allows, never for more. */
export function stricterOf(one: TemplateChoice, other: TemplateChoice): TemplateChoice {
  return templateChoices.indexOf(one) > templateChoices.indexOf(other) ? one : other;
}
