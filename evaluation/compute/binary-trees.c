/* Many small allocations: complete binary trees are made, counted and freed, short-lived ones of each second depth up to
   SIZE beside one that lives as long as the program. */
#include "program.h"

#define SHALLOWEST 4

struct node {
  struct node *left, *right;
};

static struct node *grow(int depth) {
  struct node *node = malloc(sizeof *node);
  if (!node) exit(1);
  node->left = depth > 0 ? grow(depth - 1) : NULL;
  node->right = depth > 0 ? grow(depth - 1) : NULL;
  return node;
}

static long count(const struct node *node) {
  return node->left ? 1 + count(node->left) + count(node->right) : 1;
}

static void cut(struct node *node) {
  if (node->left) {
    cut(node->left);
    cut(node->right);
  }
  free(node);
}

static long grow_count_cut(int depth) {
  struct node *tree = grow(depth);
  long nodes = count(tree);
  cut(tree);
  return nodes;
}

int main(void) {
  int deepest = size_or(16);
  if (deepest < SHALLOWEST + 2) deepest = SHALLOWEST + 2;
  printf("%ld\n", grow_count_cut(deepest + 1));
  struct node *lasting = grow(deepest);
  for (int depth = SHALLOWEST; depth <= deepest; depth += 2) {
    long trees = 1L << (deepest - depth + SHALLOWEST), nodes = 0;
    for (long tree = 0; tree < trees; tree++) nodes += grow_count_cut(depth);
    printf("%ld of depth %d: %ld\n", trees, depth, nodes);
  }
  printf("%ld\n", count(lasting));
  cut(lasting);
  return 0;
}
