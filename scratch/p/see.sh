cd /work/wt_p && PYTHONPATH=$PWD nice -n 10 taskset -c 1 .venv/bin/python /work/m/scratch/p/see.py $1
