type Labels = Readonly<Record<string, string>>;

/** Returns whether the labels match all entries of a selector; an empty one matches everything. */
export function hasLabels(labels: Labels, selector: Labels): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}
