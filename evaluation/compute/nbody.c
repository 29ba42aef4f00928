/* The Sun and the four large planets, moved on SIZE times by a symplectic integrator. Prints the energy before and
   after, which should be the same.

   Units: astronomical units, years, masses of the Sun times 4 pi^2, so that the gravitational constant is one. */
#include <math.h>

#include "program.h"

#define BODIES 5
#define STEP 0.01
#define SUN (4 * 3.141592653589793 * 3.141592653589793)
#define YEAR 365.24

struct body {
  double at[3], speed[3], mass;
};

/* Positions in au and speeds in au a day, as of J2000 (JPL Horizons). */
static struct body bodies[BODIES] = {
    {{0, 0, 0}, {0, 0, 0}, 1},
    {{4.84143144246472, -1.16032004402743, -0.103622044471123}, {0.00166007664274404, 0.00769901118419740, -0.0000690460016972063}, 0.000954791938424327},
    {{8.34336671824458, 4.12479856412430, -0.403523417114321}, {-0.00276742510726862, 0.00499852801234917, 0.0000230417297573764}, 0.000285885980666131},
    {{12.8943695621391, -15.1111514016986, -0.223307578892656}, {0.00296460137564762, 0.00237847173959481, -0.0000296589568540238}, 0.0000436624404335156},
    {{15.3796971148509, -25.9193146099880, 0.179258772950371}, {0.00268067772490389, 0.00162824170038242, -0.0000951592254519716}, 0.0000515138902046611},
};

static void begin(void) {
  double momentum[3] = {0, 0, 0};
  for (int i = 0; i < BODIES; i++) {
    bodies[i].mass *= SUN;
    for (int axis = 0; axis < 3; axis++) {
      bodies[i].speed[axis] *= YEAR;
      momentum[axis] += bodies[i].speed[axis] * bodies[i].mass;
    }
  }
  /* The whole rests. */
  for (int axis = 0; axis < 3; axis++) bodies[0].speed[axis] -= momentum[axis] / SUN;
}

static double energy(void) {
  double sum = 0;
  for (int i = 0; i < BODIES; i++) {
    struct body *a = &bodies[i];
    sum += a->mass * (a->speed[0] * a->speed[0] + a->speed[1] * a->speed[1] + a->speed[2] * a->speed[2]) / 2;
    for (int j = i + 1; j < BODIES; j++) {
      struct body *b = &bodies[j];
      double x = a->at[0] - b->at[0], y = a->at[1] - b->at[1], z = a->at[2] - b->at[2];
      sum -= a->mass * b->mass / sqrt(x * x + y * y + z * z);
    }
  }
  return sum;
}

static void move(void) {
  for (int i = 0; i < BODIES; i++) {
    struct body *a = &bodies[i];
    for (int j = i + 1; j < BODIES; j++) {
      struct body *b = &bodies[j];
      double x = a->at[0] - b->at[0], y = a->at[1] - b->at[1], z = a->at[2] - b->at[2];
      double square = x * x + y * y + z * z;
      double pull = STEP / (square * sqrt(square));
      double on_a = b->mass * pull, on_b = a->mass * pull;
      a->speed[0] -= x * on_a, a->speed[1] -= y * on_a, a->speed[2] -= z * on_a;
      b->speed[0] += x * on_b, b->speed[1] += y * on_b, b->speed[2] += z * on_b;
    }
  }
  for (int i = 0; i < BODIES; i++)
    for (int axis = 0; axis < 3; axis++) bodies[i].at[axis] += STEP * bodies[i].speed[axis];
}

int main(void) {
  int steps = size_or(5000000);
  begin();
  printf("%.9f\n", energy());
  for (int step = 0; step < steps; step++) move();
  printf("%.9f\n", energy());
  return 0;
}
