type Labels = Readonly<Record<string, string>>;

/** A selector names labels with their values; an empty one takes all. */
export function hasLabels(labels: Labels, selector: Labels): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}
