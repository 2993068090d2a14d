-- Bring what is derived from the host's tables up to what they are now, once the function for it exists.
do $$
begin
    if to_regprocedure('billing_adapt_to_host()') is not null then
        perform billing_adapt_to_host();
    end if;
end
$$;
