//! lowbit beside other crates, in one process: products of weights of 8, 4 and 2 bits and of floats,
//! interleaved, with ratios and shares of what the machine can do, which is measured too.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --help
//! ```

mod clock;
mod limits;
mod options;
mod others;
mod ours;
mod plan;
mod table;

use options::Options;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(options) = Options::of(std::env::args().skip(1))? else {
        println!("{}", options::HELP);
        return Ok(());
    };
    let threads = options.threads.to_string();
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: no other thread has been started.
        unsafe { std::env::set_var(variable, &threads) };
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build_global()?;
    println!(
        "{} thread(s), lowbit on {}; medians of {} interleaved rounds; GOP/s, a multiplication and \
         an addition being two",
        options.threads,
        lowbit::Isa::selected()?,
        options.rounds
    );
    println!(
        "ratios are medians of the rounds' ratios; compiled for {}",
        if cfg!(target_feature = "avx2") {
            "this processor (all of candle's products use its instructions)"
        } else {
            "any processor (of candle's products, those of Q4K and Q8_0 choose theirs at run time)"
        }
    );
    for part in plan::PARTS {
        if options.only.as_deref().is_none_or(|only| part.name == only) {
            let group = (part.build)(&options)?;
            println!("{}", table::show(&clock::measure(group, &options)));
        }
    }
    Ok(())
}
