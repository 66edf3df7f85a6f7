const memoryForm = /^(\d+(?:\.\d+)?)(?:b|([kmgt])(?:i?b|i)?)?$/i;

/** Docker's `512m` as Kubernetes' `512Mi`: the units of both are powers of 1024. Undefined for what is no amount. */
export function memoryQuantity(text: string): string | undefined {
  const [, number, unit] = memoryForm.exec(text) ?? [];
  if (number === undefined || Number(number) === 0) return undefined;
  return unit === undefined ? number : `${number}${unit.toUpperCase()}i`;
}

/** Cores as they are written: `1.5`. Undefined for what is no amount. */
export function cpuQuantity(text: string): string | undefined {
  return /^(?:\d+(?:\.\d{1,3})?|\.\d{1,3})$/.test(text) && Number(text) > 0 ? String(Number(text)) : undefined;
}
