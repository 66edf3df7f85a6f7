const memoryForm = /^(\d+(?:\.\d+)?)(?:b|([kmgt])(?:i?b|i)?)?$/i;

/**
 * Converts Docker's `512m` to Kubernetes' `512Mi`: the units of both are powers of 1024. Returns undefined for an
 * invalid amount.
 */
export function memoryQuantity(text: string): string | undefined {
  const [, number, unit] = memoryForm.exec(text) ?? [];
  if (number === undefined || Number(number) === 0) return undefined;
  return unit === undefined ? number : `${number}${unit.toUpperCase()}i`;
}

/** Parses a number of cores such as `1.5`. Returns undefined for an invalid number. */
export function cpuQuantity(text: string): string | undefined {
  return /^(?:\d+(?:\.\d{1,3})?|\.\d{1,3})$/.test(text) && Number(text) > 0 ? String(Number(text)) : undefined;
}
