// Where workers run: on cores of their own where that is asked for, else wherever the system puts them, but not where
// another process keeps them from running (Linux).
#ifndef TVM_SPARSE_PLACING_H_
#define TVM_SPARSE_PLACING_H_

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "cores.h"
#include "waiting.h"

#define CACHE_LINE 128
// A thread that gets no processor time for so long does not run.
#define HELD_UP_NANOSECONDS 5000
// A worker that takes no part in so many launches is looked at.
#define LAUNCHES_UNSEEN 16
// How long a worker stays where it was moved to.
#define AWAY_NANOSECONDS 50000000

typedef struct {
  _Alignas(CACHE_LINE) atomic_uint posted;  // the last launch that the worker takes part in
  atomic_uint asleep;
  uint32_t first_seen;  // value of `posted` when the worker was created
  pthread_t thread;
  atomic_uint seen;     // the last launch that it took part in
  atomic_uint working;  // whether it does so at this moment
  atomic_uint lent;     // whether it does so on the caller's core
#if defined(__linux__)
  _Atomic(int64_t) moved;  // when it was moved to some of its CPUs; 0: it may use all of them
  cpu_set_t usable;        // all of them, where it was moved
  int held_up;             // of the caller: see `FindHeldUp`
  int64_t time;
#endif
} Worker;

#if defined(__linux__)
// Where that is asked for, binds workers to cores of their own: those after the caller's, the others again where there
// are more workers.
static void BindWorkers(Worker* workers, uint32_t count) {
  const char* text = getenv("TVM_BIND_THREADS");
  if (text == NULL || atoi(text) <= 0) return;
  int cpus[CPU_SETSIZE];
  cpu_set_t usable;
  int cores = UsableCores(cpus), own = 0;
  if (cores < 2 || sched_getaffinity(0, sizeof(usable), &usable) != 0) return;
  int caller = FirstOfCore(sched_getcpu(), &usable);
  while (own < cores && cpus[own] != caller) ++own;
  for (uint32_t i = 0; i < count; ++i) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus[(own + 1 + (int)i % (cores - 1)) % cores], &one);
    pthread_setaffinity_np(workers[i].thread, sizeof(one), &one);
  }
}

static int64_t TimeOnCpu(const Worker* worker) {
  clockid_t clock;
  struct timespec time;
  if (pthread_getcpuclockid(worker->thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// Which of some workers get no processor time, since somebody else has their cores. Returns whether there is one.
static int FindHeldUp(Worker* workers, uint32_t count, int (*is_candidate)(const Worker*)) {
  int any = 0;
  for (Worker* worker = workers; worker < workers + count; ++worker) {
    worker->held_up = is_candidate(worker);
    if (worker->held_up) worker->time = TimeOnCpu(worker);
    any |= worker->held_up;
  }
  if (!any) return 0;
  for (int64_t end = Nanoseconds() + HELD_UP_NANOSECONDS; Nanoseconds() < end;) Pause();
  any = 0;
  for (Worker* worker = workers; worker < workers + count; ++worker) {
    worker->held_up = worker->held_up && TimeOnCpu(worker) == worker->time;
    any |= worker->held_up;
  }
  return any;
}

static int IsWorking(const Worker* worker) { return (int)atomic_load(&worker->working); }

static int IsAbsent(const Worker* worker) {
  // Every worker that takes part is posted the launch first.
  return atomic_load_explicit(&worker->posted, memory_order_relaxed) -
             atomic_load_explicit(&worker->seen, memory_order_relaxed) >=
         LAUNCHES_UNSEEN;
}

// Whether a worker may be moved to or from a CPU: those that are bound to cores of their own stay there.
static int IsFree(Worker* worker, int cpu) {
  if (atomic_load(&worker->moved) == 0 &&
      pthread_getaffinity_np(worker->thread, sizeof(worker->usable), &worker->usable) != 0) {
    return 0;
  }
  return cpu >= 0 && cpu < CPU_SETSIZE && CPU_COUNT(&worker->usable) > 1 && CPU_ISSET(cpu, &worker->usable);
}

static void Confine(Worker* worker, const cpu_set_t* cpus) {
  atomic_store(&worker->moved, Nanoseconds());
  pthread_setaffinity_np(worker->thread, sizeof(*cpus), cpus);
}

// Keeps a worker away from the caller's CPU for some time.
static void SendAway(Worker* worker, int cpu) {
  cpu_set_t others = worker->usable;
  CPU_CLR(cpu, &others);
  Confine(worker, &others);
}

// The caller, who has nothing to do but wait, has workers finish on its own core that somebody else keeps from theirs.
// It would wait until they get it back, some milliseconds, in which a model runs several layers. Returns whether there
// was one.
static int LendCore(Worker* workers, uint32_t count) {
  if (!FindHeldUp(workers, count, IsWorking)) return 0;
  int any = 0, cpu = sched_getcpu();
  for (Worker* worker = workers; worker < workers + count; ++worker) {
    if (!worker->held_up || !IsFree(worker, cpu)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    atomic_store(&worker->lent, 1);
    Confine(worker, &one);
    any = 1;
  }
  return any;
}

static void TakeCoreBack(Worker* workers, uint32_t count) {
  int cpu = sched_getcpu();
  for (Worker* worker = workers; worker < workers + count; ++worker) {
    if (!atomic_load(&worker->lent)) continue;
    if (IsFree(worker, cpu)) SendAway(worker, cpu);
    atomic_store(&worker->lent, 0);
  }
}

// The system counts threads, not work: where another process uses a core, it may leave a worker on the caller's, where
// it does not get to run. Workers that were not seen for some launches are sent to other cores.
static void SendAbsentAway(Worker* workers, uint32_t count) {
  if (!FindHeldUp(workers, count, IsAbsent)) return;
  int cpu = sched_getcpu();
  for (Worker* worker = workers; worker < workers + count; ++worker) {
    if (worker->held_up && IsFree(worker, cpu)) SendAway(worker, cpu);
  }
}

// Of a worker that begins its part of a launch: after some time it may go wherever it might before.
static void Return(Worker* self) {
  int64_t moved = atomic_load_explicit(&self->moved, memory_order_acquire);
  if (moved == 0 || Nanoseconds() - moved < AWAY_NANOSECONDS) return;
  pthread_setaffinity_np(pthread_self(), sizeof(self->usable), &self->usable);
  // If it was moved again meanwhile, it returns later.
  atomic_compare_exchange_strong(&self->moved, &moved, 0);
}
#else
static void BindWorkers(Worker* workers, uint32_t count) { (void)workers, (void)count; }
static int LendCore(Worker* workers, uint32_t count) { return (void)workers, (void)count, 0; }
static void TakeCoreBack(Worker* workers, uint32_t count) { (void)workers, (void)count; }
static void SendAbsentAway(Worker* workers, uint32_t count) { (void)workers, (void)count; }
static void Return(Worker* self) { (void)self; }
#endif

#endif  // TVM_SPARSE_PLACING_H_
