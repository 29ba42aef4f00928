/* The Mandelbrot set on SIZE by SIZE points, eight points of a line at a time, at most fifty rounds each. Prints how
   many points are in it, and a checksum of the picture. */
#include "program.h"

#define LANES 8
#define ROUNDS 50

/* One bit for each of eight points beside each other: whether it stays near zero. */
static unsigned points(const double *x, double y) {
  double re[LANES], im[LANES];
  for (int i = 0; i < LANES; i++) re[i] = x[i], im[i] = y;
  for (int round = 0; round < ROUNDS; round++) {
    int near = 0;
    for (int i = 0; i < LANES; i++) {
      double re2 = re[i] * re[i], im2 = im[i] * im[i];
      near |= re2 + im2 <= 4;
      im[i] = 2 * re[i] * im[i] + y;
      re[i] = re2 - im2 + x[i];
    }
    if (!near) return 0;
  }
  unsigned bits = 0;
  for (int i = 0; i < LANES; i++) bits |= (unsigned)(re[i] * re[i] + im[i] * im[i] <= 4) << i;
  return bits;
}

int main(void) {
  int n = size_or(2000);
  double *x = malloc((n + LANES) * sizeof *x);
  if (!x) return 1;
  for (int i = 0; i < n + LANES; i++) x[i] = 2.0 * i / n - 1.5;
  unsigned long inside = 0, checksum = 0;
  for (int row = 0; row < n; row++) {
    double y = 2.0 * row / n - 1;
    for (int column = 0; column < n; column += LANES) {
      unsigned bits = points(x + column, y);
      if (n - column < LANES) bits &= (1u << (n - column)) - 1;
      inside += __builtin_popcount(bits);
      checksum = (checksum * 31 + bits) & 0xffffffff;
    }
  }
  free(x);
  printf("%lu %lx\n", inside, checksum);
  return 0;
}
