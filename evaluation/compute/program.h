/* What the programs have in common: their size comes from the variable SIZE, which native programs and WASI commands
   have alike. */
#include <stdio.h>
#include <stdlib.h>

static int size_or(int usual) {
  const char *text = getenv("SIZE");
  int size = text ? atoi(text) : usual;
  if (size < 1) {
    fprintf(stderr, "SIZE must be a number from 1 on\n");
    exit(1);
  }
  return size;
}
