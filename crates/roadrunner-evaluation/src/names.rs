//! The names in the results: what was run, where, and who did it.

use std::fmt;

use clap::ValueEnum;

/// One of the papers' experiments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Experiment {
    /// Cold start and run of a function that says hello, and of one that makes a picture smaller.
    MotivationStart,
    /// How much of a transfer is serialization.
    MotivationTransfer,
    /// One payload from a function to another.
    Transfer,
    /// One payload of 10 MB from a function to several.
    Fanout,
    /// What the latency of a transfer consists of.
    Breakdown,
    /// Starts of a function that does nothing, and of one that reads a file.
    Coldstart,
    /// Programs that compute, in seconds.
    Compute,
    /// What the runtime takes up.
    Footprint,
}

/// Where the two functions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Place {
    /// Both on this host.
    SameHost,
    /// In network namespaces with a link of 100 Mbit/s between them.
    #[value(name = "two-hosts-100mbit")]
    TwoHosts100Mbit,
    /// The same with 1 Gbit/s.
    #[value(name = "two-hosts-1gbit")]
    TwoHosts1Gbit,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum System {
    /// Roadrunner, both functions in one process.
    RoadrunnerUser,
    /// Roadrunner, each function in a process of its own.
    RoadrunnerKernel,
    /// Roadrunner, over TCP.
    RoadrunnerNetwork,
    /// Native functions in runc containers, over HTTP with JSON.
    NativeHttpJson,
    /// Native functions in runc containers, over HTTP with the bytes as they are.
    NativeHttpRaw,
    /// WebAssembly functions on plain Wasmtime and WASI, over HTTP with JSON.
    WasmtimeHttpJson,
    /// Native functions, by way of a Redis server.
    Redis,
    /// Native functions, over a UNIX socket.
    UnixSocket,
    /// Native functions, over a TCP connection.
    Tcp,
    /// Native functions, in iceoryx2's shared memory.
    Iceoryx2,
    /// The paper's user-space path: a copy into the host and another one out of it.
    PaperCopy,
    /// The paper's data hose: `vmsplice` and `splice` in chunks of 64 KiB over TCP.
    PaperHose,
    /// Native programs in runc containers.
    Runc,
    /// A process with Wasmtime for each function.
    ProcessPerFunction,
    /// Node's WASI.
    NodeWasi,
    /// Compiled by gcc -O3.
    NativeGcc,
    /// Compiled by clang -O3.
    NativeClang,
    /// Roadrunner, a process for each call.
    RoadrunnerProcess,
    /// Roadrunner, a fresh sandbox for each call in a process that runs.
    RoadrunnerSandbox,
    /// Roadrunner, where there is only one way.
    Roadrunner,
}

impl System {
    /// Whether it is Roadrunner, which has no peer's excuses.
    #[must_use]
    pub fn is_ours(self) -> bool {
        use System as S;
        matches!(
            self,
            S::RoadrunnerUser
                | S::RoadrunnerKernel
                | S::RoadrunnerNetwork
                | S::RoadrunnerProcess
                | S::RoadrunnerSandbox
                | S::Roadrunner
        )
    }

    /// Whether its functions are in containers.
    #[must_use]
    pub(crate) fn is_in_container(self) -> bool {
        matches!(self, Self::NativeHttpJson | Self::NativeHttpRaw | Self::Runc)
    }
}

macro_rules! shown_as_its_value {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}

shown_as_its_value!(Experiment, Place, System);

#[cfg(test)]
mod tests {
    use super::*;

    fn names<T: ValueEnum + fmt::Display>() -> Vec<String> {
        T::value_variants().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(names::<Place>(), ["same-host", "two-hosts-100mbit", "two-hosts-1gbit"]);
        assert_eq!(
            names::<Experiment>().join(" "),
            "motivation-start motivation-transfer transfer fanout breakdown coldstart compute footprint"
        );
        assert_eq!(
            names::<System>().join(" "),
            "roadrunner-user roadrunner-kernel roadrunner-network native-http-json native-http-raw \
            wasmtime-http-json redis unix-socket tcp iceoryx2 paper-copy paper-hose runc process-per-function \
            node-wasi native-gcc native-clang roadrunner-process roadrunner-sandbox roadrunner"
        );
    }
}
