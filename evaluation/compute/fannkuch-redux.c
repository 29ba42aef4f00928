/* All permutations of SIZE numbers: how often must the first n be turned around, n being the first number, until that is
   one? Prints a checksum of all these counts and the largest. */
#include "program.h"

#define MOST 16

int main(void) {
  int n = size_or(10);
  if (n > MOST) return 1;
  int row[MOST], turned[MOST], left[MOST];
  for (int i = 0; i < n; i++) row[i] = i, left[i] = i + 1;
  long checksum = 0;
  int most = 0;
  for (long nth = 0;; nth++) {
    if (row[0] != 0) {
      for (int i = 0; i < n; i++) turned[i] = row[i];
      int flips = 0;
      for (int first = turned[0]; first != 0; first = turned[0]) {
        for (int low = 0, high = first; low < high; low++, high--) {
          int held = turned[low];
          turned[low] = turned[high];
          turned[high] = held;
        }
        flips++;
      }
      if (flips > most) most = flips;
      checksum += nth % 2 == 0 ? flips : -flips;
    }
    /* The next one: rotate the shortest beginning that has not been through all its rotations. */
    int end = 1;
    for (;; end++) {
      if (end == n) {
        printf("%ld %d\n", checksum, most);
        return 0;
      }
      int held = row[0];
      for (int i = 0; i < end; i++) row[i] = row[i + 1];
      row[end] = held;
      if (--left[end] > 0) break;
      left[end] = end + 1;
    }
  }
}
