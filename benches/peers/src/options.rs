//! The command line.

/// What `--help` prints.
pub(crate) const HELP: &str = "\
cargo run --release -- [options]
  --threads N     threads of all crates (1)
  --rounds N      interleaved rounds (7)
  --rows LIST     rows of activations (1,8,32,128,512)
  --size N        weights N x N (4096)
  --only PART     w8a8, w4a8, w2a8, decode, float, small
  --every-isa     lowbit on every instruction set of the machine, not the best and AVX2 alone
RUSTFLAGS=\"-C target-cpu=native\" before it lets all of candle use this processor.";

/// What is measured, and how often.
pub(crate) struct Options {
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<usize>,
    pub(crate) size: usize,
    pub(crate) only: Option<String>,
    pub(crate) every_isa: bool,
}

impl Options {
    /// Those of some arguments; `None` if help is wanted.
    pub(crate) fn of(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let mut options = Self {
            threads: 1,
            rounds: 7,
            rows: vec![1, 8, 32, 128, 512],
            size: 4096,
            only: None,
            every_isa: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--threads" => options.threads = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--size" => options.size = value()?.parse()?,
                "--only" => options.only = Some(value()?),
                "--every-isa" => options.every_isa = true,
                "--rows" => {
                    let rows = value()?;
                    let rows = rows.split(',').map(str::parse);
                    options.rows = rows.collect::<Result<_, _>>()?;
                }
                // What `cargo bench` passes.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("unknown option {other}; see --help").into()),
            }
        }
        Ok(Some(options))
    }
}
