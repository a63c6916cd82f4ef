"""tau2-bench: customers of an airline, a shop and a telephone company, who need an agent that uses tools."""
