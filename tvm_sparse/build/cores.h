// The cores that this process may use; CPUs that share a core are one.
#ifndef TVM_SPARSE_CORES_H_
#define TVM_SPARSE_CORES_H_

#include <stdint.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#include <stdio.h>

// The first of the CPUs that share a core with this one and that we may use.
static int FirstOfCore(int cpu, const cpu_set_t* usable) {
  char path[96];
  snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  FILE* file = fopen(path, "r");
  if (file == NULL) return cpu;
  int first = cpu, from, to;
  char separator = ',';
  while (separator == ',' && fscanf(file, "%d", &from) == 1) {
    to = from;
    if (fscanf(file, "%c", &separator) != 1) separator = '\n';
    if (separator == '-' && (fscanf(file, "%d", &to) != 1 || fscanf(file, "%c", &separator) != 1)) separator = '\n';
    for (int sibling = from; sibling <= to && sibling < first; ++sibling) {
      if (sibling >= 0 && sibling < CPU_SETSIZE && CPU_ISSET(sibling, usable)) first = sibling;
    }
  }
  fclose(file);
  return first;
}

// A CPU of each core that we may use, and how many those are.
static int UsableCores(int cpus[CPU_SETSIZE]) {
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof(usable), &usable) != 0) return 0;
  int cores = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &usable) && FirstOfCore(cpu, &usable) == cpu) cpus[cores++] = cpu;
  }
  return cores;
}
#endif

static uint32_t CountCores(void) {
#if defined(__linux__)
  int cpus[CPU_SETSIZE];
  int cores = UsableCores(cpus);
  if (cores > 0) return (uint32_t)cores;
#endif
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (uint32_t)online : 1;
}

#endif  // TVM_SPARSE_CORES_H_
